"""A worker's program that tells what it was started with: `python -m tests.workers.start_probe [vllm]`.

One JSON object on standard output. With `vllm` it also tells what the libraries have made of it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

OWN = ("LOCAL_LLM_WORKER_KEY",)


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _mask(text: str) -> str:
    """Without the two that glibc keeps for its threads, once there are any."""
    return f"{int(text, 16) & ~(0b11 << 31):x}"


def _descriptors() -> dict[str, str]:
    found = {}
    for each in sorted(Path("/proc/self/fd").iterdir(), key=lambda path: int(path.name)):
        try:
            target = str(each.readlink())
        except OSError:
            continue  # the one that the listing itself needed
        found[each.name] = target.partition(":")[0]
    return found


def basics() -> dict[str, Any]:
    """What Python and the kernel say."""
    status = _status()
    return {
        "environment": dict(os.environ),
        "argv": sys.argv,
        "original_argv": sys.orig_argv[1:],
        "flags": str(sys.flags),
        "main": [sys.modules["__main__"].__spec__.name, __name__],  # type: ignore[union-attr]
        "descriptors": _descriptors(),
        "signals": {name: _mask(status[name]) for name in ("SigBlk", "SigIgn", "SigCgt")},
        "handlers": {each.name: str(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)},
        "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "cwd": str(Path.cwd()),
        "umask": status["Umask"],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "limits": [resource.getrlimit(each) for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_STACK)],
        "hunger": Path("/proc/self/oom_score_adj").read_text().strip(),
        "capabilities": status["CapEff"],
        "temporary": tempfile.gettempdir(),
        "python_threads": [each.name for each in threading.enumerate()],
        "gc": [gc.isenabled(), gc.get_threshold()],
    }


def randomness() -> list[Any]:
    """What must differ from process to process."""
    import multiprocessing

    import numpy as np

    drawn = [random.random(), float(np.random.random()), multiprocessing.current_process().authkey.hex()]
    torch = sys.modules.get("torch")
    return drawn if torch is None else [*drawn, torch.initial_seed()]


def libraries() -> dict[str, Any]:
    """What vLLM and what it stands on have made of the environment."""
    import numpy as np
    import torch
    import vllm.envs
    from huggingface_hub import constants
    from vllm.entrypoints.cli import serve
    from vllm.platforms import current_platform

    ones = torch.ones(64, 64)
    total = float((ones @ ones).sum())
    told = {
        "sum": total,
        "path": sys.path,
        "torch_threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "numpy_errors": np.geterr(),
        "offline": [constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE],
        "vllm": {
            name: str(getattr(vllm.envs, name)) for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_RPC_BASE_PATH")
        },
        "serve": serve.__name__,
        "platform": str(current_platform.device_type),
        "cuda": [
            torch.cuda.is_available(),
            torch.cuda.is_initialized(),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
        ],
    }
    told["libraries"] = sorted(
        {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    )
    told["threads"] = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    return told


def main() -> None:
    """Tells everything."""
    told: dict[str, Any] = {"basics": basics(), "random": randomness()}
    if "vllm" in sys.argv[1:]:
        told["libraries"] = libraries()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
