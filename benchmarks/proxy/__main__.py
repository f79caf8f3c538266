"""Measures the data path beside its rivals and writes the section: `python -m benchmarks.proxy`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

from benchmarks.proxy import backpressure, load
from benchmarks.proxy.programs import (
    LITELLM_PYTHON,
    Contender,
    Missing,
    install,
    litellm,
    nginx,
    ours,
    plain_httpx,
    search_path,
    worker,
)
from benchmarks.proxy.rounds import Measured, in_turn
from benchmarks.results import Row, bars, write

ROUNDS = 9
FEWER_ROUNDS = 5
WORK_US = 40

METHOD = """\
The worker is a C program (`benchmarks/proxy/worker.c`), the load is wrk with one thread and
`benchmarks/proxy/streams.c`; all run on the same cores as the proxies. Bodies have 2 KB both ways, chunks 200
bytes, each written by a call of its own. `local-llm serve` is the real one, with `log_level: warning` (nginx
logs nothing either), and does all it does for a request: limits, model name, catalogue, lease, headers. Each
figure is the median over rounds, in which the contenders took turns; behind it the range over the rounds."""

LIMITS = """\
What limits: requests/s are bounded by one core's time for Python. On a quiet machine nginx takes 15 µs of it
for a request and this server 120: 30 are the kernel's, and 90 go into some 150 calls, none of which takes a
twentieth (a quarter in uvicorn and the task it makes, a quarter the lease and its two decisions; then the
look at the model, the heads, reading, naming and the account). For 0.35 beside this worker 43 µs would be
needed. The aim was set where a worker gave 15 to 27 thousand answers a second without a proxy, and nginx 9
to 14 thousand before it; the second row has such a worker. A streamed chunk takes 1 µs where chunks come in
bulk, and where each comes alone 25 µs, two thirds of them the kernel's (nginx: 12 µs)."""


def main() -> int:
    """Measures everything; returns the exit status."""
    try:
        install("nginx", "wrk")
        with _contenders() as (direct, fast, slow):
            rows, rates = _beside_nginx(fast)
            rows += _beside_python(fast[-1], slow, rates)
            rows += [_paced(direct, *fast), *_backpressure(fast[-1])]
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    write("proxy", rows, [METHOD, LIMITS], versions=_versions(), plot=bars(rates, "requests/s"))
    return 0


@contextmanager
def _contenders() -> Iterator[tuple[Contender, list[Contender], list[Contender]]]:
    """The worker alone; the fast two, of which the second is ours; the slow two."""
    with tempfile.TemporaryDirectory(prefix="bench-proxy-") as folder, ExitStack() as stack:
        direct = stack.enter_context(worker())
        # nginx's worker process may be another user's.
        Path(folder).chmod(0o755)
        first = stack.enter_context(nginx(Path(folder), direct.port))
        second = stack.enter_context(ours(Path(folder)))
        slow = [stack.enter_context(plain_httpx(direct.port))]
        if LITELLM_PYTHON.exists():
            slow.append(stack.enter_context(litellm(Path(folder), direct.port)))
        yield direct, [first, second], slow


def _beside_nginx(contenders: list[Contender]) -> tuple[list[Row], dict[str, float]]:
    requests = in_turn(lambda each: load.requests_per_second(each, seconds=2), contenders, ROUNDS)
    worked = in_turn(
        lambda each: load.requests_per_second(each, seconds=2, work_us=WORK_US), contenders, ROUNDS
    )
    chunks = in_turn(lambda each: load.streams(each, 16, chunks=8000).chunks_per_second, contenders, ROUNDS)
    alone = in_turn(lambda each: load.streams(each, 1, rounds=300, chunks=3).first_ms, contenders, ROUNDS)
    burst = in_turn(lambda each: load.streams(each, 32, rounds=15, chunks=3).first_ms, contenders, ROUNDS)
    rows = [
        _ratio_row(
            "requests/s, 16 connections, 2 KB bodies, fast fake worker", requests, 0.35, " (dream: 0.5)"
        ),
        _ratio_row(f"the same, the worker computes {WORK_US} µs over each answer", worked, 0.35, ""),
        _ratio_row("streamed chunks/s, 16 streams", chunks, 0.9, ""),
        _difference_row("first chunk, one stream at a time", alone, 0.5),
        _difference_row("first chunk, in a burst of 32", burst, 6.0),
    ]
    return rows, {name: requests.median(name) for name in requests.values}


def _ratio_row(figure: str, measured: Measured, least: float, more: str) -> Row:
    ratio = measured.ratio("local-llm", "nginx")
    absolutes = f"{measured.median('local-llm'):,.0f} beside {measured.median('nginx'):,.0f}/s"
    return Row(figure, "nginx", f"≥ {least}{more}", f"{ratio.in_words()}; {absolutes}", ratio.median >= least)


def _difference_row(figure: str, measured: Measured, most_ms: float) -> Row:
    more = measured.difference("local-llm", "nginx")
    absolutes = f"{measured.median('local-llm'):.2f} beside {measured.median('nginx'):.2f} ms"
    return Row(
        figure,
        "nginx",
        f"at most {most_ms:g} ms more",
        f"{more.in_words()} ms more; {absolutes}",
        more.median <= most_ms,
    )


def _beside_python(ours: Contender, rivals: list[Contender], rates: dict[str, float]) -> list[Row]:
    requests = in_turn(lambda each: load.requests_per_second(each, seconds=3), [ours, *rivals], FEWER_ROUNDS)
    rates.update((each.name, requests.median(each.name)) for each in rivals)
    rows = []
    for each in rivals:
        ratio = requests.ratio(ours.name, each.name)
        absolutes = f"{requests.median(ours.name):,.0f} beside {requests.median(each.name):,.0f}/s"
        figures = f"{ratio.in_words('.1f')} times; {absolutes}"
        rows.append(Row("requests/s, the same", each.name, "≥ 10 times", figures, ratio.median >= 10))
    if not LITELLM_PYTHON.exists():
        rows.append(Row("requests/s, the same", "LiteLLM", "≥ 10 times", "not installed"))
    return rows


def _paced(direct: Contender, nginx: Contender, ours: Contender) -> Row:
    chunks, connections = 250, 512
    lost = 0

    def delay(contender: Contender) -> float:
        nonlocal lost
        seen = load.streams(contender, connections, chunks=chunks, every_us=20_000, spread_ms=2000)
        lost += connections * chunks - seen.events + seen.broken
        return seen.delay_p99_ms

    measured = in_turn(delay, [direct, nginx, ours], FEWER_ROUNDS)
    more = measured.difference(ours.name, direct.name)
    absolutes = (
        f"{measured.median(ours.name):.1f} beside {measured.median(direct.name):.1f} ms "
        f"(nginx: {measured.median(nginx.name):.1f} ms)"
    )
    return Row(
        "512 streams of 50 chunks/s: chunk delay p99",
        "direct",
        "nothing lost, under 20 ms more",
        f"{more.in_words('.1f')} ms more; {absolutes}; {lost} lost",
        lost == 0 and more.median < 20,
    )


def _backpressure(ours: Contender) -> list[Row]:
    grown, answers = backpressure.slow_clients(ours)
    grown_by_upload, upload = backpressure.slow_worker(ours)
    return [
        Row(
            f"memory, {backpressure.CLIENTS} slow clients of long answers",
            "their answers",
            "bounded",
            f"grows by {grown:.1f} MB beside {answers:,.0f} MB",
            grown < backpressure.CLIENTS,
        ),
        Row(
            "memory, a large upload to a slow worker",
            "the upload",
            "bounded",
            f"grows by {grown_by_upload:.1f} MB beside {upload:.0f} MB",
            grown_by_upload < 2.5 * upload,
            note="read whole, for `model` may be its last word; `max_body_bytes` is the bound",
        ),
    ]


def _versions() -> dict[str, str]:
    said = subprocess.run(
        ["nginx", "-v"], capture_output=True, text=True, check=True, env={"PATH": search_path()}
    )
    found = {"nginx": said.stderr.strip().rpartition("/")[2]}
    found.update((name, version(name)) for name in ("uvicorn", "httptools", "uvloop", "starlette", "httpx"))
    if LITELLM_PYTHON.exists():
        ask = "from importlib.metadata import version; print(version('litellm'))"
        said = subprocess.run([LITELLM_PYTHON, "-c", ask], capture_output=True, text=True, check=True)
        found["LiteLLM"] = said.stdout.strip()
    return found


if __name__ == "__main__":
    sys.exit(main())
