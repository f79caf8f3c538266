"""What is embedded: the same texts in every run."""

from __future__ import annotations

import random

CLIENTS = 64

_SEED = 5
_WORDS = (  # noqa: SIM905 - a hundred lines otherwise
    "the of and to in is that for it was on are as with at be this have from or one had by word but not what "
    "all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way "
    "could people my than first water been call who oil its now find long down day did get come made may part"
).split()


def short() -> list[str]:
    """One text a client, of 6 to 10 words: a search query or a heading."""
    chance = random.Random(_SEED)
    return [_text(chance, chance.randint(6, 10)) for _ in range(CLIENTS)]


def mixed() -> list[str]:
    """One text a client: half of them short, some paragraphs, a few near the model's 256 tokens."""
    chance = random.Random(_SEED)
    lengths = [chance.randint(3, 12) for _ in range(32)]
    lengths += [chance.randint(20, 60) for _ in range(24)]
    lengths += [chance.randint(120, 220) for _ in range(8)]
    chance.shuffle(lengths)
    return [_text(chance, each) for each in lengths]


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize()
