"""What NVML says, through its real binding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nvml_stand_in import GIB, GPU, Broken, Held, Lost, StandIn

PROGRAM = """
import json
from dataclasses import asdict
from local_llm import gpu
print(json.dumps({
    "devices": [asdict(each) for each in gpu.devices()],
    "holders": [asdict(each) for each in gpu.holders()],
    "words": [each.in_words() for each in gpu.holders()],
    "by_process": gpu.memory_by_process(),
}))
"""


@pytest.fixture
def gpus(tmp_path: Path) -> StandIn:
    """None yet."""
    return StandIn(tmp_path)


def seen(gpus: StandIn) -> dict[str, Any]:
    """By a fresh process."""
    environment = {**os.environ, **gpus.environment}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, stdout=subprocess.PIPE)
    told: dict[str, Any] = json.loads(run.stdout)
    return told


def test_devices_and_holders(gpus: StandIn) -> None:
    """Figures, names, and who holds how much, the greatest first."""
    gpus.write(
        GPU(22), GPU(1, total_gib=8), Held(os.getpid(), 2), Held(999_999_999, 19.5), Held(7, None, gpu=1)
    )
    told = seen(gpus)
    first, second = told["devices"]
    assert (first["uuid"], first["name"], first["free_bytes"]) == ("GPU-0", "Stand-in 0", 2 * GIB)
    assert (second["index"], second["total_bytes"]) == (1, 8 * GIB)
    assert [each["pid"] for each in told["holders"]] == [999_999_999, os.getpid(), 7]
    unseen, own, silent = told["words"]
    assert unseen == "a program that cannot be seen from here (process 999999999) 19.5 GiB on GPU 0"
    assert own.endswith(f"(process {os.getpid()}) 2.0 GiB on GPU 0")
    assert silent.endswith("(process 7) on GPU 1")
    assert told["by_process"] == {"999999999": 19.5 * GIB, str(os.getpid()): 2 * GIB}


def test_a_lost_device_is_left_out(gpus: StandIn) -> None:
    """The others are still there."""
    gpus.write(GPU(1), Lost(), GPU(2))
    assert [each["uuid"] for each in seen(gpus)["devices"]] == ["GPU-0", "GPU-2"]


def test_a_broken_driver(gpus: StandIn) -> None:
    """Is as good as none."""
    gpus.write(GPU(1), Broken())
    assert seen(gpus) == {"devices": [], "holders": [], "words": [], "by_process": {}}
