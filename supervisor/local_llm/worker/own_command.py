"""The command line of a server that the settings bring. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from local_llm.catalog import gguf
from local_llm.catalog.card import ModelCard
from local_llm.model_settings import ModelSettings
from local_llm.placeholders import filled
from local_llm.worker.launch import HOST, Identity


def own_command(identity: Identity, model: ModelSettings, user_args: Sequence[str]) -> tuple[str, ...]:
    """Program and arguments.

    Args:
        identity: names the model, the port and the key.
        model: the model's settings, which have the command.
        user_args: further arguments, of the engine and the model.
    """
    values = {
        "path": _path(identity.card, model),
        "port": str(identity.port),
        "host": HOST,
        "id": identity.card.id,
        "key": identity.key,
    }
    return filled((*model.command, *user_args), values)


def _path(card: ModelCard, model: ModelSettings) -> str:
    """What a server of GGUF files wants is the file: of one in parts, the first."""
    if model.path is not None:
        return str(model.path.expanduser().absolute())
    path = card.path.absolute()
    first = next(iter(card.weights), "")
    return str(path / first if first.endswith(gguf.SUFFIX) and path.name != first else path)
