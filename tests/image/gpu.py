"""What a person with a GPU wants to see first: the driver, and what each engine makes of it."""

from __future__ import annotations

from tests.image.engine import SERVICE, Compose, expect

SEEN_BY_TORCH = """
import torch
print("torch", torch.__version__, "for CUDA", torch.version.cuda)
for index in range(torch.cuda.device_count()):
    free, total = torch.cuda.mem_get_info(index)
    print(" ", torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index),
          f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
assert torch.cuda.is_available()
"""
SEEN_BY_VLLM = """
import vllm
from vllm.platforms import current_platform
print("vllm", vllm.__version__, "on", current_platform.device_name)
assert current_platform.is_cuda()
"""
SEEN_BY_TRANSFORMERS = """
import sentence_transformers, torch
print("sentence-transformers", sentence_transformers.__version__, "on", torch.zeros(1, device="cuda").device)
"""


def show_gpu(compose: Compose) -> None:
    """Prints the driver and what the engines see.

    Raises:
        Failed: one of them sees no GPU.
    """
    compose("up", "--detach", "--wait", "--no-build", SERVICE)
    query = "--query-gpu=name,driver_version,memory.total"
    asked = [("driver", ("nvidia-smi", query, "--format=csv,noheader"))]
    for engine, program in (
        ("torch", SEEN_BY_TORCH),
        ("vllm", SEEN_BY_VLLM),
        ("transformers", SEEN_BY_TRANSFORMERS),
    ):
        asked.append((engine, ("/opt/engines/bin/python", "-c", program)))
    for what, command in asked:
        done = compose.inside(*command)
        print(f"   {what}: {done.stdout.strip()}", flush=True)
        expect(done.returncode == 0, f"{what} sees no GPU")
    compose("down", "--volumes")
