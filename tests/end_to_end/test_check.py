"""`local-llm check --run` on each of the demonstration models, with the real engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MODELS
from tests.supervisor.test_cli import USUAL_SECONDS, run

pytestmark = pytest.mark.engines

ANSWERS = {
    "MiniLM-reranker-demo": '"Paris is in France." ',
    "SmolLM2-135M-Instruct": '"The capital of France is Paris."',
    "all-MiniLM-L6-v2": "384 dimensions, of length 1.00",
}


def test_every_demonstration_model_is_tried(tmp_path: Path) -> None:
    """One after the other: loaded with its phases timed, asked one thing fit for its kind, stopped."""
    for name in ANSWERS:
        (tmp_path / name).symlink_to(MODELS / name)
    done = run("check", str(tmp_path), "--run", "--json", seconds=USUAL_SECONDS * 5)
    assert done.returncode == 0, done
    told = {each["id"]: each for each in json.loads(done.stdout)["models"]}
    assert told.keys() == ANSWERS.keys()
    for name, answer in ANSWERS.items():
        trial = told[name]["trial"]
        assert trial["ok"], trial
        assert trial["answer"].startswith(answer)
        steps = [each["name"] for each in trial["steps"]]
        assert {"engine start", "weights", "answer", "stop"} <= set(steps)
        assert told[name]["fits"]
