"""The models of a run: folders that misbehave, lose a shard, vanish, and are mended again."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.catalog.catalog import Catalog
from local_llm.settings import Settings
from tests.fake_engine import write_fake_model

GOOD_FLAGS: Mapping[str, Any] = {"chunks": 8, "chunk_seconds": 0.03, "answer_seconds": 0.05}

MISBEHAVIOUR: Mapping[str, Mapping[str, Any]] = {
    "leaks a child": {"leak_child": True},
    "leaks shared memory": {"leak_shm": True},
    "refuses SIGTERM": {"ignore_sigterm": True},
    "refuses SIGTERM and leaks": {"ignore_sigterm": True, "leak_child": True, "leak_shm": True},
    "is slow to stop": {"stop_seconds": 2},
    "fills its log": {"fill_log": 4_000_000},
    "answers garbage": {"garbage_answers": True},
    "is garbage from the start": {"garbage": True},
    "dies at its start": {"die_at_start": 3, "say": "CUDA out of memory"},
    "serves another name": {"wrong_name": True},
    "is never ready": {"never_ready": True},
    "hangs in its start": {"hang_health": True},
    "starts slowly": {"slow_start": 1.5},
    "says it is dead": {"sick_after": 2},
    "dies after an answer": {"crash_after": 3},
    "dies in a stream": {"die_mid_stream": 3},
    "dies in an answer": {"die_mid_answer": True},
    "refuses requests": {"status": 500},
    "thinks long": {"answer_seconds": 2},
    "talks fast": {"chunks": 60, "chunk_bytes": 65_536},
    "talks long": {"chunks": 40, "chunk_seconds": 0.25},
}
"""By name: flags of the fake engine."""

LOSES_A_SHARD, VANISHES, IS_RENEWED = "loses a shard", "vanishes", "is renewed"
FOLDER_FAULTS = (LOSES_A_SHARD, VANISHES, IS_RENEWED)


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    Attributes:
        id: as the catalogue has it.
        kind: chat, embedding or reranker.
        names: what clients may call it, the id among them.
        bystander: nothing is done to it or its worker, so every request for it must be answered in full.
    """

    id: str
    kind: str
    names: tuple[str, ...]
    bystander: bool = False


FAKE_MODELS = (
    Model("stone", "chat", ("stone",), bystander=True),
    Model("oak", "chat", ("oak",)),
    Model("north/elm", "chat", ("north/elm", "elm")),
    Model("north/ash", "chat", ("north/ash",)),
    Model("south/fir", "chat", ("south/fir", "fir")),
    Model("south/yew", "chat", ("south/yew",)),
    Model("moss", "embedding", ("moss",)),
    Model("lab/fern", "embedding", ("lab/fern", "fern")),
    Model("lab/ivy", "reranker", ("lab/ivy", "ivy")),
)


class Folders:
    """The models folder. Each model has at most one fault at a time.

    Args:
        root: gets the folders.
        originals: real models to copy; None: fake ones are written.
    """

    def __init__(self, root: Path, originals: Path | None = None) -> None:
        self.models_dir = root / "models"
        self._cellar = root / "cellar"
        self._cellar.mkdir(parents=True)
        self._faulty: dict[Model, str] = {}
        self._shards: dict[Model, Path] = {}
        self._real = originals is not None
        if originals is None:
            self.models: Sequence[Model] = FAKE_MODELS
            for model in self.models:
                self._write_fake(model)
        else:
            shutil.copytree(originals, self.models_dir, copy_function=_link_or_copy)
            cards = Catalog(Settings(models_dir=self.models_dir)).snapshot().models
            self.models = [Model(card.id, card.kind.value, (card.id,)) for card in cards]

    def decide(self, chance: random.Random) -> str | None:
        """Does one thing to one model; or mends the one that has been faulty the longest.

        Returns:
            The fault, by name; None if something was mended.
        """
        kinds = FOLDER_FAULTS if self._real else (*FOLDER_FAULTS, *MISBEHAVIOUR)
        mend, model, fault = chance.random() < 0.5, chance.choice(self.models), chance.choice(kinds)
        if model.bystander or model in self._faulty or (mend and self._faulty):
            if self._faulty:
                self._mend(next(iter(self._faulty)))
            return None
        if fault == IS_RENEWED:
            self._renew(model)
            return fault
        self._faulty[model] = fault
        if fault == LOSES_A_SHARD:
            self._shards[model] = max((self.models_dir / model.id).glob("*.safetensors"))
            self._shards[model].rename(self._in_cellar(model, "-shard"))
        elif fault == VANISHES:
            (self.models_dir / model.id).rename(self._in_cellar(model))
        else:
            self._write_flags(model, {**GOOD_FLAGS, **MISBEHAVIOUR[fault]})
        return fault

    def mend_all(self) -> None:
        """Nothing is wrong with any model any more."""
        for model in list(self._faulty):
            self._mend(model)
        for model in self.models:
            self._renew(model)

    def _mend(self, model: Model) -> None:
        fault = self._faulty.pop(model)
        if fault == LOSES_A_SHARD:
            self._in_cellar(model, "-shard").rename(self._shards.pop(model))
        elif fault == VANISHES:
            self._in_cellar(model).rename(self.models_dir / model.id)
        else:
            self._write_flags(model, GOOD_FLAGS)

    def _renew(self, model: Model) -> None:
        """A new version, as far as the catalogue can tell: it has a clean slate."""
        config = self.models_dir / model.id / "config.json"
        _replace(config, config.read_bytes())

    def _write_flags(self, model: Model, flags: Mapping[str, Any]) -> None:
        _replace(self.models_dir / model.id / "fake.json", json.dumps(flags).encode())
        self._renew(model)

    def _write_fake(self, model: Model) -> None:
        folder = write_fake_model(self.models_dir, model.id, model.kind, **GOOD_FLAGS)
        whole = (folder / "model.safetensors").read_bytes()
        shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        for shard in shards:
            (folder / shard).write_bytes(whole)
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {f"weight{number}": shard for number, shard in enumerate(shards)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def _in_cellar(self, model: Model, suffix: str = "") -> Path:
        return self._cellar / (model.id.replace("/", "--") + suffix)


def _replace(path: Path, content: bytes) -> None:
    """In one step, as careful programs do it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.rename(path)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
