"""vLLM: what its three processes import, and what lets them be forked. Written against 0.32.0."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from local_llm_worker.template.errors import Unfit
from local_llm_worker.template.importing import folder_of, import_all

TESTED_VERSION = "0.32."

# In their order: the API server, the engine's core, the worker (of whichever platform), what they import
# late, in functions, and what the libraries beside vLLM import late.
_MODULES = (
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.generate.generative_scoring.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.chat_completion.batch_serving",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.models.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.entrypoints.cohere.api_router",
    "vllm.entrypoints.scale_out.derender.api_router",
    "vllm.entrypoints.scale_out.render.api_router",
    "vllm.entrypoints.scale_out.token_in_token_out.api_router",
    "vllm.entrypoints.serve.elastic_ep.api_router",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.instrumentator.offline_docs",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.serve.tokenize.api_router",
    "vllm.entrypoints.serve.utils.fingerprint",
    "vllm.entrypoints.serve.utils.orca_metrics",
    "vllm.entrypoints.serve.utils.sse_keep_alive",
    "vllm.plugins.lora_resolvers.filesystem_resolver",
    "vllm.plugins.lora_resolvers.hf_hub_resolver",
    "vllm.renderers.hf",
    "vllm.transformers_utils.chat_templates.registry",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.core.kv_cache_manager",
    "vllm.v1.metrics.reader",
    "vllm.v1.executor.multiproc_executor",
    "vllm.model_executor.layers.fused_moe.eep_reconfigure",
    "vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.distributed.elastic_ep.elastic_execute",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "compressed_tensors",
    "model_hosting_container_standards.sagemaker",
    "xgrammar",
    "local_llm_worker.key_guard",
)
_CPU_MODULES = (
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.triton_utils.dispatcher",
    "vllm.utils.cpu_triton_utils",
)
_CUDA_MODULES = (
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.executor.uniproc_executor",
)


class VllmEngine:
    """vLLM.

    Args:
        architectures: model classes to import, as config.json names them.
    """

    def __init__(self, architectures: Sequence[str]) -> None:
        self._architectures = architectures

    def library_environment(self) -> dict[str, str]:
        """On the CPU vLLM spawns its workers with torch's OpenMP and its own allocator preloaded.

        Without them "only one core" (vllm#27369); `vllm/platforms/cpu.py` sets the same.
        """
        vllm, torch = folder_of("vllm"), folder_of("torch")
        if vllm is None or torch is None or list(torch.glob("lib/libtorch_cuda*")):
            return {}
        preloaded = os.environ.get("LD_PRELOAD", "")
        wanted = [
            *sorted((vllm / "libs").glob("libtcmalloc*.so*"))[:1],
            *[*torch.parent.glob("torch.libs/libgomp*.so*"), *torch.glob("lib/libgomp*.so*")][:1],
        ]
        added = [str(each) for each in wanted if each.name.split(".")[0] not in preloaded]
        return {"LD_PRELOAD": ":".join([*added, preloaded]).rstrip(":")} if added else {}

    def preload(self) -> Iterator[str]:
        """Imports vLLM and the model classes; yields what was not there.

        Raises:
            Unfit: another version, or no vLLM.
        """
        try:
            import vllm
        except ImportError as problem:
            raise Unfit(f"vLLM cannot be imported: {problem}") from problem
        if not vllm.__version__.startswith(TESTED_VERSION):
            raise Unfit(f"vLLM {vllm.__version__} starts cold: only {TESTED_VERSION}x was tried warm")
        yield from import_all(_MODULES)
        from vllm.platforms import current_platform

        yield from import_all(_CPU_MODULES if current_platform.is_cpu() else _CUDA_MODULES)
        yield from self._import_architectures()

    def _import_architectures(self) -> Iterator[str]:
        """The classes, and what vLLM else asks a process of its own about each of them (seconds)."""
        from vllm.model_executor.models.registry import ModelRegistry

        for name in self._architectures:
            if name not in ModelRegistry.models:
                continue
            try:
                ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())
            except Exception:  # noqa: BLE001 - the worker that needs it says better what is wrong
                yield name

    def set_right(self) -> None:
        """Forked, vLLM's own processes are forked too."""
        from vllm.platforms import current_platform

        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        if current_platform.is_cpu():
            _keep_forking(current_platform)
            os.register_at_fork(after_in_child=_take_thread_settings)
        if not _has_several_api_servers(sys.argv):
            os.register_at_fork(after_in_child=let_go_of_servers)


def _keep_forking(platform: Any) -> None:
    """Puts back what the CPU's platform changes: it sets `spawn` whenever a configuration is checked.

    It does so for the sake of OpenMP's settings, which are read when the library is loaded;
    `_take_thread_settings` does for a fork what that would have done.
    """
    check = platform.check_and_update_config

    def check_and_keep_forking(vllm_config: Any) -> None:
        check(vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    platform.check_and_update_config = check_and_keep_forking


def _take_thread_settings() -> None:
    """In a process that vLLM forks: the number of threads and the cores that it would be spawned with.

    `vllm/utils/ompmultiprocessing.py` sets the two variables around the start of each worker. It only
    sets sizes: a pool that is started before a fork deadlocks after it (libgomp).
    """
    threads, cores = os.environ.get("OMP_NUM_THREADS"), os.environ.get("GOMP_CPU_AFFINITY")
    if threads is not None and threads.isdecimal():
        import torch

        torch.set_num_threads(int(threads))
    if cores is not None:
        os.sched_setaffinity(0, {int(core) for core in cores.split()})


def _has_several_api_servers(argv: Sequence[str]) -> bool:
    """Whether vLLM hands its listening socket to processes that it forks."""
    flags = ("--api-server-count", "--api_server_count", "-asc", "--data-parallel", "--data_parallel", "-dp")
    return any(argument.startswith(flags) for argument in argv)


def let_go_of_servers() -> None:
    """In a process that vLLM forks: what was bound to a port stays with the API server.

    Else an engine that outlives it would keep the port open and its clients waiting
    (llm-d-fast-model-actuation#550). The number stays taken, for the object that knows it.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        with suppress(OSError):
            if _is_server(int(name)):
                os.dup2(nothing, int(name), inheritable=False)
    os.close(nothing)


def _is_server(descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.type != socket.SOCK_STREAM:
            return False
        try:
            copy.getpeername()
        except OSError:
            return True
        return False
