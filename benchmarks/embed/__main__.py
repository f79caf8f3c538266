"""`python -m benchmarks.embed`: sentence-transformers, the server and Infinity in turn, then the table."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.embed import texts
from benchmarks.embed.contenders import INFINITY, Contender, Encode, NotStarted, Server, infinity, local_llm
from benchmarks.embed.measuring import SHORT, Table, measure
from benchmarks.embed.report import ENCODE, INFINITY_PLAIN, notes, rates, rows
from benchmarks.results import bars, write

# The least cosine between a server's vector and encode's of the same text.
LEAST_ALIKE = 0.999


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/all-MiniLM-L6-v2"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    _settle_environment()
    with ExitStack() as servers:
        contenders: list[Contender] = [
            servers.enter_context(local_llm(options.model)),
            Encode(ENCODE, options.model),
        ]
        missing = _add_infinity(servers, contenders, options.model)
        table: Table = uvloop.run(_prepare_and_measure(contenders, options.rounds))
    write(
        "embed",
        rows(table, missing),
        notes(table),
        versions=_versions(with_infinity=missing is None),
        plot="Embeddings a second, 64 short texts at once:\n\n" + bars(rates(table), "/s"),
    )


def _settle_environment() -> None:
    """The same for all; before torch is imported here."""
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["GOMP_SPINCOUNT"] = "2000"


def _add_infinity(servers: ExitStack, contenders: list[Contender], model: Path) -> str | None:
    """Starts it, with its fast path and without; returns why that cannot be, or None."""
    if not INFINITY.exists():
        return "it is not installed"
    try:
        # With torch.compile, its default, it refuses its own fast path.
        contenders.append(servers.enter_context(infinity(model, "--no-compile")))
        plain = servers.enter_context(infinity(model, "--no-compile", "--no-bettertransformer"))
    except NotStarted as error:
        return "it does not start: " + str(error).strip().splitlines()[-1][:200]
    plain.name = INFINITY_PLAIN
    contenders.append(plain)
    return None


async def _prepare_and_measure(contenders: Sequence[Contender], rounds: int) -> Table:
    await _prepare(contenders)
    return await measure(contenders, rounds)


async def _prepare(contenders: Sequence[Contender]) -> None:
    """Loads, compares, warms up; returns when nobody has anything to do.

    Raises:
        ValueError: somebody's vectors are others than encode's.
    """
    encode = next(each for each in contenders if each.name == ENCODE)
    asked = texts.mixed()
    expected = await encode.vectors(asked)
    for each in contenders:
        if isinstance(each, Server):
            each.wait_until_idle()
        alike = float(np.min(np.sum(await each.vectors(asked) * expected, axis=1)))
        if alike < LEAST_ALIKE:
            raise ValueError(f"{each.name}: a vector's cosine with encode's is {alike:.4f}")
        await each.embed(SHORT.texts, SHORT.times, in_step=False)
    for each in contenders:
        if isinstance(each, Server):
            each.wait_until_idle()


def _versions(*, with_infinity: bool) -> dict[str, str]:
    named = {name: version(name) for name in ("sentence-transformers", "transformers", "torch")}
    if with_infinity:
        pip = [str(INFINITY.with_name("python")), "-m", "pip", "--disable-pip-version-check", "list"]
        listed = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
        for name in ("infinity-emb", "transformers", "optimum"):
            found = re.search(rf"^{name} +(\S+)", listed.replace("_", "-"), re.MULTILINE)
            named[f"{name} (Infinity's)"] = found[1] if found else "?"
    return named


if __name__ == "__main__":
    main()
