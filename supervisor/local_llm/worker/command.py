"""From a model card and the settings to a command line and an environment.

Pure but for one file: what the user gave vLLM with `--config`.
The user's arguments come last, so they win over ours, the model's over the engine's.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from local_llm.catalog.card import Engine, Kind
from local_llm.gpu import Device, host_memory
from local_llm.settings import EngineSettings, Settings
from local_llm.worker import vllm_start
from local_llm.worker.launch import HOST, Identity, Launch

KEY_VARIABLE = "LOCAL_LLM_WORKER_KEY"

OWN_VARIABLES = ("TMPDIR", "VLLM_RPC_BASE_PATH", KEY_VARIABLE)
"""What differs from worker to worker, and nothing reads before a worker's program runs."""

# vLLM's own default. Above it, what it does not count (CUDA contexts, NCCL, fragmentation) has no room.
_MOST_UTILIZATION = 0.92
# Below it vLLM's own message, which says how much is free, is the best answer.
_LEAST_UTILIZATION = 0.05

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


def launch(
    identity: Identity, settings: Settings, *, devices: Sequence[Device], environment: Mapping[str, str]
) -> Launch:
    """What to run for `identity`.

    Args:
        identity: names the model, port, key and temporary folder.
        settings: all of them.
        devices: the GPUs with their memory as it is now; none means that the CPU computes.
        environment: the supervisor's own.
    """
    engine = settings.engine_settings(identity.card.engine)
    model = settings.model_settings(identity.card.id)
    user_args = (*engine.args, *model.args)
    user_env = {**engine.env, **model.env}
    inherited = inheritable(environment)
    if identity.card.engine is Engine.VLLM:
        visible = visible_devices(devices, {**inherited, **user_env}.get("CUDA_VISIBLE_DEVICES"))
        own_args = _vllm_args(identity, settings, visible, user_args)
    else:
        own_args = _transformers_args(identity, settings)
    env = {
        **dict.fromkeys(OWN_VARIABLES, str(identity.temporary)),
        **shared_environment(identity.card.engine, settings, devices, environment),
        **model.env,
        KEY_VARIABLE: identity.key,
    }
    return Launch(identity, (python_of(engine), *own_args, *user_args), env, tuple(devices))


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
    return {
        **inherited,
        **_QUIET,
        **_vllm_env(settings, devices, inherited),
        **settings.engine_settings(engine).env,
    }


def python_of(engine: EngineSettings) -> str:
    """The Python that runs an engine."""
    return sys.executable if engine.python is None else str(engine.python)


def _vllm_args(
    identity: Identity, settings: Settings, devices: Sequence[Device], user_args: Sequence[str]
) -> list[str]:
    card = identity.card
    user_args = [*_in_config_file(user_args), *user_args]
    args = ["-m", "local_llm_worker.vllm_serve", str(card.path.absolute())]
    args += ["--served-model-name", *card.served_names]
    args += ["--host", HOST, "--port", str(identity.port)]
    args += ["--middleware", "local_llm_worker.key_guard.KeyGuard"]
    if not is_set(user_args, "--max-model-len"):
        # The model's own context if it fits, else the longest that does: it comes up on a desktop GPU.
        args += ["--max-model-len", "auto"]
    if not is_set(user_args, "--disable-uvicorn-access-log"):
        # The supervisor logs every request; these lines would only push the telling ones out of the
        # last lines that a failure shows. (Prompts are logged by neither, unless the user asks vLLM to.)
        args.append("--disable-uvicorn-access-log")
    if devices:
        if not is_set(user_args, "--gpu-memory-utilization"):
            share = gpu_memory_utilization(
                devices[: _gpus_used(user_args)], settings.engines.vllm.gpu_memory_reserve_bytes
            )
            args += ["--gpu-memory-utilization", f"{share:.3f}"]
        args += vllm_start.profile_args(settings.engines.vllm.start, user_args)
        if not is_set(user_args, "--safetensors-load-strategy"):
            args += vllm_start.prefetch_args(card.size_bytes, host_memory().free_bytes)
    elif not is_set(user_args, "--enforce-eager"):
        # vLLM 0.32 compiled for the CPU answers wrong text (seen with SmolLM2-135M); eager is right.
        args.append("--enforce-eager")
    return args


def _transformers_args(identity: Identity, settings: Settings) -> list[str]:
    card = identity.card
    engine = settings.engines.transformers
    # A classifier is scored the way a reranker is: one text, or a pair, to numbers.
    kind = "embedding" if card.kind is Kind.EMBEDDING else "reranker"
    args = ["-m", "local_llm_worker.pooling", "--model", str(card.path.absolute())]
    args += ["--served-name", *card.served_names]
    args += ["--port", str(identity.port), "--kind", kind]
    args += ["--token-ids", engine.token_ids, "--max-batch-tokens", str(engine.max_batch_tokens)]
    return args


def _vllm_env(
    settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> dict[str, str]:
    """For every worker: the transformers one has torch's inductor and Triton too."""
    caches = cache_folder(settings, environment)
    env = {} if caches is None else vllm_start.cache_environment(caches, environment)
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


def is_set(args: Iterable[str], flag: str) -> bool:
    """Whether the user's arguments give `flag`, however it is spelled.

    ``--flag value``, ``--flag=value``, with underscores for dashes (as vLLM allows), and ``--no-flag``.
    """
    return any(_spelled(arg) in (flag, "--no-" + flag.removeprefix("--")) for arg in args)


def _spelled(arg: str) -> str:
    return arg.partition("=")[0].replace("_", "-") if arg.startswith("-") else arg


def _in_config_file(args: Sequence[str]) -> list[str]:
    """The flags and values of the YAML file that `--config` names: vLLM lets the command line win over it.

    What cannot be read is left to vLLM's own message.
    """
    path = _value(args, "--config")
    if path is None:
        return []
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []
    pairs = content.items() if isinstance(content, dict) else ()
    return [part for key, value in pairs if value is not False for part in (f"--{key}", str(value))]


def _gpus_used(args: Sequence[str]) -> int:
    """How many GPUs one worker spreads over, by the user's arguments."""
    return _number(args, "--tensor-parallel-size", "-tp") * _number(args, "--pipeline-parallel-size", "-pp")


def _number(args: Sequence[str], *flags: str) -> int:
    value = _value(args, *flags)
    return int(value) if value is not None and value.isdecimal() and int(value) > 0 else 1


def _value(args: Sequence[str], *flags: str) -> str | None:
    """What the last of the arguments that is one of `flags` gives, since that one wins; None if none is."""
    value = None
    for position, arg in enumerate(args):
        if _spelled(arg) in flags:
            following = args[position + 1] if position + 1 < len(args) else None
            value = arg.partition("=")[2] or following
    return value


def gpu_memory_utilization(devices: Sequence[Device], reserve_bytes: int) -> float:
    """vLLM's share of the memory of each device: what is free now less a reserve.

    vLLM's default of 0.92 refuses to start when less is free, as on every GPU that also drives a
    desktop. The reserve also covers vLLM's own CUDA context, which exists before it looks.

    Args:
        devices: those that the worker will use, at least one; the fullest decides.
        reserve_bytes: left to others, on each.

    Returns:
        a share between 0.05 and 0.92, rounded down to thousandths.
    """
    share = min((each.free_bytes - reserve_bytes) / each.total_bytes for each in devices)
    return min(max(math.floor(share * 1000) / 1000, _LEAST_UTILIZATION), _MOST_UTILIZATION)


def visible_devices(devices: Sequence[Device], cuda_visible_devices: str | None) -> list[Device]:
    """The devices that CUDA will show the worker, in its order.

    Args:
        devices: all, by index.
        cuda_visible_devices: the variable; None for all, else indices or the beginnings of UUIDs. As in
            CUDA, the first that names no device ends the list.
    """
    if cuda_visible_devices is None:
        return list(devices)
    visible: list[Device] = []
    for name in (each.strip() for each in cuda_visible_devices.split(",")):
        found = [
            each
            for each in devices
            if (name.isdecimal() and each.index == int(name)) or (name and each.uuid.startswith(name))
        ]
        if len(found) != 1:
            break
        visible += found
    return visible
