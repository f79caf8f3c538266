"""The command line of transformers' own `serve`, for the chat models that vLLM does not run. Pure."""

from __future__ import annotations

from local_llm.catalog import gguf
from local_llm.catalog.card import WRITES_TEXT, Engine, ModelCard
from local_llm.settings import Settings
from local_llm.worker.launch import HOST, Identity


def serves_itself(card: ModelCard) -> bool:
    """Whether transformers' own server runs the model, and not our pooling one. It is never forked."""
    return card.engine is Engine.TRANSFORMERS and card.kind in WRITES_TEXT


def chat_args(identity: Identity, settings: Settings) -> list[str]:
    """Arguments for the Python that has transformers; the user's, for `transformers serve`, follow."""
    card = identity.card
    model = settings.model_settings(card.id)
    path = card.path.absolute()
    args = ["-m", "local_llm_worker.transformers_serve"]
    first = next(iter(card.weights), "")
    if first.endswith(gguf.SUFFIX):
        folder = path.parent if path.name == first else path
        args += ["--model", str(folder), "--gguf-file", first]
    else:
        args += ["--model", str(path)]
    args += ["--served-name", *card.served_names, "--host", HOST, "--port", str(identity.port)]
    if model.dtype is not None:
        args += ["--dtype", model.dtype]
    if model.trust_remote_code:
        args.append("--trust-remote-code")
    return args
