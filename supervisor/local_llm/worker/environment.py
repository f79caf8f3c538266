"""The environment of workers: what they inherit, what every one of them is given, which GPUs they see."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_llm.catalog.card import Engine
from local_llm.gpu import Device
from local_llm.settings import Settings
from local_llm.worker import vllm_start
from local_llm.worker.audio import audio_environment

KEY_VARIABLE = "LOCAL_LLM_WORKER_KEY"

OWN_VARIABLES = ("TMPDIR", "VLLM_RPC_BASE_PATH", KEY_VARIABLE)
"""What differs from worker to worker, and nothing reads before a worker's program runs."""

# For every worker: nothing is fetched or reported behind the user's back, and the last lines before a
# death reach the log. The models folder is all there is.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    # `python -m` puts the working directory first on the import path: a folder called `vllm` in the
    # directory where the supervisor was started would be imported. (From Python 3.11 on.)
    "PYTHONSAFEPATH": "1",
}


_PRIVATE = re.compile(r"^LOCAL_LLM_|_API_KEY$|_TOKEN$|SECRET|PASSWORD", re.IGNORECASE)


def shared_environment(
    engine: Engine, settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> dict[str, str]:
    """What every worker of an engine is started with; a warm template too.

    Args:
        engine: the engine.
        settings: all of them; what they say of a single model is left out.
        devices: the GPUs; none means that the CPU computes.
        environment: the supervisor's own.
    """
    inherited = {name: value for name, value in inheritable(environment).items() if name not in OWN_VARIABLES}
    quiet = dict(_QUIET)
    if engine is Engine.COMMAND:
        del quiet["PYTHONSAFEPATH"]  # a script finds the modules beside it
    return {
        **inherited,
        **quiet,
        **_vllm_env(settings, devices, inherited),
        **settings.engine_settings(engine).env,
    }


def _vllm_env(
    settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> dict[str, str]:
    """For every worker: the transformers one has torch's inductor and Triton too."""
    caches = cache_folder(settings, environment)
    env = {} if caches is None else vllm_start.cache_environment(caches, environment)
    env |= audio_environment(settings, environment)
    return env if devices else {**env, "VLLM_CPU_KVCACHE_SPACE": str(settings.engines.vllm.cpu_kv_cache_gib)}


def cache_folder(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """`cache_dir` of the settings, else where the XDG standard has caches; None: there is no home."""
    if settings.cache_dir is not None:
        return settings.cache_dir.expanduser()
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "local-llm"
    return Path(environment["HOME"]) / ".cache" / "local-llm" if environment.get("HOME") else None


def inheritable(environment: Mapping[str, str]) -> dict[str, str]:
    """The supervisor's environment less what a worker has no business to know.

    Our own settings go (they may hold the clients' keys), and every ``..._API_KEY``, ``..._TOKEN`` and
    ``...SECRET...``: those of other services are none of a model's business, which may bring code of its
    own. With VLLM_API_KEY vLLM would demand that key too; without a hub, HF_TOKEN is of no use.
    """
    return {name: value for name, value in environment.items() if not _PRIVATE.search(name)}
