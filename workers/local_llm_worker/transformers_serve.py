"""transformers' own `serve` with one model: `python -m local_llm_worker.transformers_serve --model FOLDER`.

What it lacks as a worker is put around it here: the key that a worker demands, the names that clients
use (it would insist on its own, a path), and `/v1/models` with these names (it would list the machine's
Hugging Face cache). Everything else, the options too, is transformers'. Written against
`transformers/cli/serve.py` and `transformers/cli/serving/` of 5.19.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from local_llm_worker import parent_death
from local_llm_worker.key_guard import Application, KeyGuard, Receive, Scope, Send
from local_llm_worker.pooling.program import library_environment
from local_llm_worker.pooling.threads import usable_cores

_WANTED = "pip install 'transformers[serving]'"
_LINK = "model"


class ServedNames:
    """ASGI: answers `GET /v1/models` with the names that this worker serves; all else is the server's.

    Args:
        app: transformers' application.
        names: the model's id first.
    """

    def __init__(self, app: Application, names: Sequence[str]) -> None:
        self._app = app
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in names]
        self._answer = json.dumps({"object": "list", "data": models}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers it, or passes it on."""
        if scope["type"] != "http" or scope["path"] != "/v1/models" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._answer})


def main(arguments: Sequence[str]) -> None:
    """Serves until stopped.

    Args:
        arguments: ours (`--help` shows them), then those of `transformers serve`.
    """
    parser = argparse.ArgumentParser(prog="local_llm_worker.transformers_serve", allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--gguf-file", help="the file in it, where the weights are GGUF")
    parser.add_argument("--served-name", nargs="+", required=True, help="what clients call it, its id first")
    options, others = parser.parse_known_args(arguments)
    threads = usable_cores()
    # Threads that spin made 8 tokens take 8 s in place of 0.7 s.
    own = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    for name, value in {**library_environment(threads), **own}.items():
        os.environ.setdefault(name, value)
    try:
        _put_around(options.served_name)
        import typer
        from transformers.cli.serve import Serve
    except ImportError as problem:
        raise SystemExit(f"transformers cannot serve chat models here ({problem}): {_WANTED}") from problem
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(Serve)
    application([*others, forced_name(options.model, options.gguf_file)])


def forced_name(folder: Path, gguf_file: str | None) -> str:
    """What transformers' `serve` calls the model: ``folder`` or ``folder:file.gguf``.

    It takes an at sign in the path for the beginning of a revision, and a colon for that of a file's name.
    So it is given a link in the worker's temporary folder, which has neither.
    """
    link = Path(tempfile.mkdtemp(prefix="serve-")) / _LINK
    if gguf_file is None:
        link.symlink_to(folder.absolute(), target_is_directory=True)
        return str(link)
    link.mkdir()
    (link / "model.gguf").symlink_to((folder / gguf_file).absolute())
    return f"{link}:model.gguf"


def _put_around(names: Sequence[str]) -> None:
    """Changes the places in which transformers decides who may ask, what for, and how GGUF is loaded."""
    _guard(names)
    _take_any_name(names[0])
    _load_gguf()


def _guard(names: Sequence[str]) -> None:
    """The application: behind our key, with our names, telling errors as OpenAI does."""
    from fastapi.exceptions import HTTPException, RequestValidationError
    from transformers.cli.serving import server

    build: Callable[..., Any] = server.build_server

    def build_guarded(*args: Any, **kwargs: Any) -> Application:
        application = build(*args, **kwargs)
        for kind in (HTTPException, RequestValidationError, Exception):
            application.add_exception_handler(kind, _tell_as_openai_does)
        return KeyGuard(ServedNames(application, names))

    server.build_server = build_guarded


def _take_any_name(model_id: str) -> None:
    """A request's model is the one there is, and the answer calls it as the request does."""
    from transformers.cli.serving.utils import BaseHandler

    resolve: Callable[..., tuple[str, Any, Any]] = BaseHandler._resolve_model  # noqa: SLF001

    def resolve_by_served_name(handler: Any, body: dict[str, Any]) -> tuple[str, Any, Any]:
        asked = body.get("model")
        _translate(body)
        _, model, processor = resolve(handler, {**body, "model": handler.model_manager.force_model})
        return asked if isinstance(asked, str) else model_id, model, processor

    BaseHandler._resolve_model = resolve_by_served_name  # noqa: SLF001


def _load_gguf() -> None:
    """A GGUF file names no class, and 5.19 takes the first of none: `config.architectures[0]`."""
    from transformers.cli.serving.model_manager import ModelManager

    load: Callable[..., Any] = ModelManager._load_model  # noqa: SLF001

    def load_gguf_too(manager: Any, *args: Any, gguf_file: str | None = None, **kwargs: Any) -> Any:
        if gguf_file is None:
            return load(manager, *args, **kwargs)
        import gguf
        from transformers import AutoModelForCausalLM

        # It is made anew for every module of the model, from the same two values: a third of the load.
        gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
        return AutoModelForCausalLM.from_pretrained(
            args[0].partition("@")[0],
            gguf_file=gguf_file,
            attn_implementation=manager.attn_implementation,
            dtype=manager.dtype,
            device_map=manager.device,
        )

    ModelManager._load_model = load_gguf_too  # noqa: SLF001


def _translate(body: dict[str, Any]) -> None:
    """transformers knows `max_tokens` only, and passes over the name that OpenAI's newer clients send."""
    limit = body.get("max_completion_tokens")
    if limit is not None and body.get("max_tokens") is None:
        body["max_tokens"] = limit


async def _tell_as_openai_does(_: Any, error: Exception) -> Any:
    """FastAPI's own shape is `{"detail": ...}`."""
    from fastapi.responses import JSONResponse

    status = getattr(error, "status_code", 500)
    said = getattr(error, "detail", None) or str(error) or type(error).__name__
    if isinstance(error, KeyError):
        status, said = 400, f"the request lacks {error}"
    elif hasattr(error, "errors"):
        status, said = 400, "the body is not a JSON object"
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": f"transformers: {said}", "type": kind, "param": None, "code": None}
    return JSONResponse({"error": body}, status)


if __name__ == "__main__":
    parent_death.install()
    main(sys.argv[1:])
