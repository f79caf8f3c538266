"""The table and its notes, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.embed.measuring import BURSTS, MIXED, ONE, SHORT, WORKLOADS, Measured, Ratio, Table
from benchmarks.results import Row

OURS, ENCODE = "local-llm", "encode"
INFINITY, INFINITY_PLAIN = "Infinity", "Infinity, no BetterTransformer"

ENOUGH_OF_ENCODE = 0.75

_BESIDE = {
    ENCODE: "one `SentenceTransformer.encode` of the same texts in one batch",
    INFINITY: "Infinity (`--no-compile`)",
    INFINITY_PLAIN: "Infinity (`--no-compile --no-bettertransformer`)",
}

METHOD = (
    "all-MiniLM-L6-v2, float32. The whole server (`local-llm serve`) as it comes, asked over kept-open "
    "connections for base64, as OpenAI's client does; the clients share the cores with whom they ask. In "
    "brackets the middle half of the rounds' ratios. Everybody runs with `GOMP_SPINCOUNT=2000`, which our "
    "worker sets by itself: OpenMP's threads spin a little for one another before they sleep. With libgomp's "
    "own setting, which spins far longer, encode alone is about a tenth faster on an idle machine (0.95 to "
    "1.29 times in nine pairs). Each contender's vectors were compared with encode's first."
)


def rows(table: Table, missing: str | None) -> list[Row]:
    """The section's lines.

    Args:
        table: of all contenders.
        missing: why Infinity did not take part; None if it did.
    """
    lines = list(_all_rows(table))
    if missing:
        lines.append(Row(SHORT.figure, "Infinity", "ahead", f"not measured: {missing}"))
    return lines


def _all_rows(table: Table) -> Iterator[Row]:
    for workload in WORKLOADS:
        measured = table[workload.figure]
        for other in list(measured)[1:]:
            ratio = Ratio.of(measured[OURS], measured[other])
            reach, aim = _aim(workload.figure, other)
            yield Row(
                f"embeddings/s, {workload.figure}",
                _beside(workload.figure, other),
                reach,
                _told(ratio, measured[OURS], measured[other]),
                reached=None if aim is None else ratio.middle >= aim,
            )


def _beside(figure: str, other: str) -> str:
    if other == ENCODE and figure == ONE.figure:
        return "`SentenceTransformer.encode` of one text after another"
    return _BESIDE[other]


def _aim(figure: str, other: str) -> tuple[str, float | None]:
    if figure == ONE.figure or (figure == MIXED.figure and other == ENCODE):
        return "", None
    return ("at least 0.75", ENOUGH_OF_ENCODE) if other == ENCODE else ("ahead", 1.0)


def _told(ratio: Ratio, ours: Measured, other: Measured) -> str:
    return (
        f"{ratio.middle:.2f} times ({ratio.low:.2f} to {ratio.high:.2f}, {len(ours.rates)} rounds; "
        f"{ours.rate:.0f} beside {other.rate:.0f})"
    )


def notes(table: Table) -> Sequence[str]:
    """What the figures rest on, and where the time goes."""
    measured = table[SHORT.figure]
    costs = ", ".join(f"{name} {each.cpu_milliseconds(SHORT):.2f} ms" for name, each in measured.items())
    ours = measured[OURS]
    clients = 1000 * ours.client_seconds / (len(ours.rates) * SHORT.embeddings)
    costs_told = (
        f"CPU time of one short embedding, all of a contender's processes together: {costs}; our clients "
        f"{clients:.2f} ms. What HTTP costs in the supervisor and the worker comes on top of the model's "
        "arithmetic, and limits the first figures; two batches side by side, each on cores of its own, win "
        "some of it back. Padding saved by batches of like length is what the mixed texts gain."
    )
    return METHOD, costs_told


def rates(table: Table) -> dict[str, float]:
    """For the plot: bursts of short texts."""
    return {name: each.rate for name, each in table[BURSTS.figure].items()}
