"""The supervisor stays light: no engine in its process, little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from tests.fake_engine import write_fake_model
from tests.supervisor.server.stage import CHAT, asking, running

IMPORTS = """
import sys
import local_llm.cli, local_llm.server, local_llm.terminal
from local_llm.__main__ import main
heavy = {"torch", "transformers", "vllm", "sentence_transformers", "numpy", "local_llm_worker"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_it_imports_no_engine() -> None:
    """Nor anything else that is heavy, nor the workers' package."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_memory_stays_small(tmp_path: Path) -> None:
    """With a model served and large bodies behind it; `benchmarks/supervisor_start.py` measures closely."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path) as served:
        body = {**asking("a"), "x": "y" * 5_000_000}
        for _ in range(5):
            assert httpx.post(served.url + CHAT, json=body, timeout=60).status_code == 200
        process = psutil.Process(served.process.pid)
        maps = {Path(each.path).name for each in process.memory_maps()}
        assert not [name for name in maps if "torch" in name or "cuda" in name.lower()]
        assert process.memory_info().rss < 120 << 20
