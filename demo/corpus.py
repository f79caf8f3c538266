"""Generated questions with a passage that answers each and passages that only look as if they did.

The tables of facts.yaml give variety of subject (which row?) and of relation (which column?), the pairs
of questions.yaml give questions that share no word with their answer. Rows and pairs are held out whole,
so that a test asks of subjects that training never saw.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HELD_OUT_SHARE = 0.15
WORDINGS_OF_A_FACT = 2
ROUNDS_OF_ANSWERS = 2
"""How often each pair of questions.yaml comes up, against other answers each time."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question, the passage that answers it, and passages that do not, the hardest first."""

    question: str
    relevant: str
    irrelevant: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """What to learn from, and what to be tested on."""

    training: tuple[Example, ...]
    held_out: tuple[Example, ...]


def generate(seed: int) -> Corpus:
    """The corpus that belongs to `seed`; the same in every run."""
    dice = random.Random(seed)  # noqa: S311 - variety, not secrecy
    here = Path(__file__).parent
    tables = yaml.safe_load((here / "facts.yaml").read_text(encoding="utf-8"))
    lines = yaml.safe_load((here / "questions.yaml").read_text(encoding="utf-8"))
    pairs = [tuple(line.split(" | ")) for line in lines]
    training: list[Example] = []
    held_out: list[Example] = []
    for table in tables:
        rows = [dict(zip(table["columns"], row.split(" | "), strict=True)) for row in table["rows"]]
        learnt, unseen = _split(rows, dice)
        training += _about(table["relations"], learnt, pairs, dice)
        held_out += _about(table["relations"], unseen, pairs, dice)
    learnt_pairs, unseen_pairs = _split(pairs, dice)
    for _ in range(ROUNDS_OF_ANSWERS):
        training += _answered(learnt_pairs, dice)
    held_out += _answered(unseen_pairs, dice)
    dice.shuffle(training)
    return Corpus(tuple(training), tuple(held_out))


def _split(items: Sequence[Any], dice: random.Random) -> tuple[list[Any], list[Any]]:
    """Most of `items`, and those held out."""
    shuffled = list(items)
    dice.shuffle(shuffled)
    cut = max(2, round(len(shuffled) * HELD_OUT_SHARE))
    return shuffled[cut:], shuffled[:cut]


def _about(
    relations: Sequence[Mapping[str, list[str]]],
    rows: Sequence[Mapping[str, str]],
    pairs: Sequence[tuple[str, ...]],
    dice: random.Random,
) -> Iterator[Example]:
    """Questions on every row and relation. Wrong: another row's, another relation's, anything else."""
    for row in rows:
        for relation in relations:
            for ask in dice.sample(relation["ask"], WORDINGS_OF_A_FACT):
                other_row = dice.choice([each for each in rows if each is not row])
                other_relation = dice.choice([each for each in relations if each is not relation])
                yield Example(
                    _filled(ask, row),
                    _filled(dice.choice(relation["say"]), row),
                    (
                        _filled(dice.choice(relation["say"]), other_row),
                        _filled(dice.choice(other_relation["say"]), row),
                        dice.choice(pairs)[1],
                    ),
                )


def _answered(pairs: Sequence[tuple[str, ...]], dice: random.Random) -> Iterator[Example]:
    """Each question with its answer and those of three others."""
    for question, answer in pairs:
        others = dice.sample([each for _, each in pairs if each != answer], 3)
        yield Example(question, answer, tuple(others))


def _filled(template: str, row: Mapping[str, str]) -> str:
    """The template with the row's words in it, the first letter a capital."""
    text = template.format_map(row)
    return text[0].upper() + text[1:]
