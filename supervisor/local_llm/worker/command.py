"""From a model card and the settings to what the nanny is told to run.

The user's arguments come last, so they win over ours, the model's over the engine's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from signal import Signals

from local_llm import model_gpus
from local_llm.catalog.card import Engine
from local_llm.engine_settings import EngineSettings
from local_llm.gpu import Device
from local_llm.model_settings import ModelSettings
from local_llm.settings import Settings
from local_llm.worker.chat_command import chat_args, serves_itself
from local_llm.worker.environment import (
    KEY_VARIABLE,
    OWN_VARIABLES,
    inheritable,
    shared_environment,
)
from local_llm.worker.launch import Identity, Launch
from local_llm.worker.own_command import own_command
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

    Raises:
        LoadFailed: the settings want GPUs that are not there.
    """
    engine = settings.engine_settings(identity.card.engine)
    model = settings.model_settings(identity.card.id)
    user_args = (*engine.args, *model.args)
    visible = model_gpus.visible_to(identity.card, devices, settings, inheritable(environment))
    model_gpus.refuse_missing(identity.card.id, model, devices, visible)
    env = {
        **dict.fromkeys(OWN_VARIABLES, str(identity.temporary)),
        **shared_environment(identity.card.engine, settings, devices, environment),
        **model.env,
        **model_gpus.environment_of(model),
        KEY_VARIABLE: identity.key,
    }
    if identity.card.engine is Engine.COMMAND:
        argv = own_command(identity, model, user_args)
        stop_signal = Signals[model.stop_signal]
        return Launch(identity, argv, env, tuple(devices), stop_signal)
    if identity.card.engine is Engine.VLLM:
        own_args = vllm_args(identity, settings, visible, user_args)
    elif serves_itself(identity.card):
        own_args = chat_args(identity, settings)
    else:
        own_args = pooling_args(identity, settings)
    python = python_of(identity.card.engine, settings, model)
    return Launch(identity, (python, *own_args, *user_args), env, tuple(devices))


def python_of(engine: Engine, settings: Settings, model: ModelSettings | None = None) -> str:
    """The Python that runs an engine, or one model of it."""
    said = settings.engine_settings(engine)
    python = said.python if isinstance(said, EngineSettings) else None
    if model is not None and model.python is not None:
        python = model.python
    return sys.executable if python is None else str(python)
