"""From a model card and the settings to what the nanny is told to run.

The user's arguments come last, so they win over ours, the model's over the engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from local_llm.catalog.card import Engine
from local_llm.gpu import Device
from local_llm.settings import EngineSettings, Settings
from local_llm.worker.environment import (
    KEY_VARIABLE,
    OWN_VARIABLES,
    inheritable,
    shared_environment,
    visible_devices,
)
from local_llm.worker.launch import Identity, Launch
from local_llm.worker.pooling_command import pooling_args
from local_llm.worker.vllm_command import vllm_args


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
        own_args = vllm_args(identity, settings, visible, user_args)
    else:
        own_args = pooling_args(identity, settings)
    env = {
        **dict.fromkeys(OWN_VARIABLES, str(identity.temporary)),
        **shared_environment(identity.card.engine, settings, devices, environment),
        **model.env,
        KEY_VARIABLE: identity.key,
    }
    python = python_of(identity.card.engine, settings)
    return Launch(identity, (python, *own_args, *user_args), env, tuple(devices))


def python_of(engine: Engine, settings: Settings) -> str:
    """The Python that runs an engine."""
    said = settings.engine_settings(engine)
    python = said.python if isinstance(said, EngineSettings) else None
    return sys.executable if python is None else str(python)
