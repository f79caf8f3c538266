"""vLLM's attention on a CPU: the kernel for AMX is not used, since it answers wrongly.

On a Xeon with AMX, vLLM 0.32.0 answered "What is the capital of France?" with "L'Étoile, la Marseillaise, la
femme ..." (SmolLM2-135M, bfloat16, eager). With the kernel for plain vectors, with float32, and in
transformers, the answer was right; everything else of vLLM that uses AMX made no difference. The vector
kernel took 0.29 s for a prompt of 1,500 tokens where the other took 0.21 s.
"""

from __future__ import annotations

from typing import Any


def avoid_amx() -> None:
    """To be called in each process that computes, or in the one that it is forked from."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.attention.backends import cpu_attn

    choose = getattr(cpu_attn, "_get_attn_isa", None)
    if choose is None or getattr(choose, "avoids_amx", False):
        return

    def choose_without_amx(*args: Any, **kwargs: Any) -> str:
        chosen = str(choose(*args, **kwargs))
        return "vec" if chosen == "amx" else chosen

    choose_without_amx.avoids_amx = True  # type: ignore[attr-defined]
    cpu_attn._get_attn_isa = choose_without_amx  # noqa: SLF001
