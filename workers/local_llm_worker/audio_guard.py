"""Tells who sends sounds that this worker has nothing to read them with.

vLLM reads sound files with PyAV or soundfile, which come with `vllm[audio]` and not with vLLM. Without them
it calls every file invalid (0.32.0 answers 400, "Invalid or unsupported audio file"), and people look for
the fault in their files. vLLM takes this as `--middleware local_llm_worker.audio_guard.AudioGuard`.
"""

from __future__ import annotations

import importlib.util
import json

from local_llm_worker.key_guard import Application, Receive, Scope, Send

READERS = ("av", "soundfile")
"""Either will do; soundfile alone reads only files that have the rate the model wants."""

_REFUSAL = json.dumps(
    {
        "error": {
            "message": "The engine cannot read sound files: neither PyAV nor soundfile is installed where it "
            "runs. Install them beside vLLM (pip install av soundfile), then load the model anew.",
            "type": "server_error",
            "param": None,
            "code": "no_audio_reader",
        }
    }
).encode()


class AudioGuard:
    """ASGI middleware that answers requests to ``/v1/audio/`` with 501 where no library reads sounds.

    Args:
        app: what is guarded.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._can_read = any(importlib.util.find_spec(name) for name in READERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the connection on, or answers it."""
        refuses = not self._can_read and scope["type"] == "http" and scope["path"].startswith("/v1/audio/")
        if not refuses:
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_REFUSAL))]
        await send({"type": "http.response.start", "status": 501, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})
