"""Sounds and images through the whole server to a real vLLM, and back as text."""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.serving import Served, serving
from tests.tiny_models import write_tiny_transcription_model, write_tiny_vision_language_model

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a tiny Whisper and a tiny Idefics3."""
    folder = tmp_path_factory.mktemp("senses")
    write_tiny_transcription_model(folder / "models" / "tiny-whisper")
    write_tiny_vision_language_model(folder / "models" / "tiny-idefics")
    engines = {"vllm": {"warm": "off"}, "transformers": {"warm": "off"}}
    with serving(folder / "models", folder, {"engines": engines}) as running:
        yield running


def sound(rate: int, channels: int, seconds: float = 2.0) -> bytes:
    """A WAV file with one tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        values = (int(8000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(int(rate * seconds)))
        writer.writeframes(b"".join(struct.pack("<h", value) * channels for value in values))
    return file.getvalue()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", timeout=600, max_retries=0) as client:
        yield client


def test_their_kinds_are_seen(served: Served) -> None:
    """The folders are enough."""
    with served.client() as client:
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert {name: each["kind"] for name, each in models.items()} == {
        "tiny-whisper": "transcription",
        "tiny-idefics": "vision-language",
    }
    assert {each["engine"] for each in models.values()} == {"vllm"}


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_openais_client_is_answered(client: openai.OpenAI, rate: int, channels: int) -> None:
    """Whatever rate the file has; two seconds are two seconds."""
    answer = client.audio.transcriptions.create(
        model="tiny-whisper",
        file=("tone.wav", sound(rate, channels)),
        language="en",
        extra_body={"max_completion_tokens": 8},
    )
    assert isinstance(answer.text, str)
    assert answer.model_dump()["usage"] == {"type": "duration", "seconds": 2}


def test_a_stream_of_text(served: Served) -> None:
    """Translations too, as events."""
    form = {"model": "tiny-whisper", "stream": "true", "max_completion_tokens": "8"}
    files = {"file": ("tone.wav", sound(16_000, 1))}
    with served.client() as client:
        answer = client.post("/v1/audio/translations", data=form, files=files)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line][-1] == "data: [DONE]"


def test_larger_than_vllms_own_limit(served: Served) -> None:
    """26 MiB are over what vLLM allows by default; it is told what is allowed here."""
    message = _upload(served, b"RIFF" + bytes(26 << 20)).json()["error"]["message"]
    assert message.startswith("Invalid or corrupted audio data")


def test_an_image_is_looked_at(client: openai.OpenAI) -> None:
    """A chat with an image in it costs as many more tokens as the image has, and is answered."""
    image = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(image, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}"
    with_image: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    counts = []
    for content in (with_image[:1], with_image):
        answer = client.chat.completions.create(
            model="tiny-idefics", messages=[{"role": "user", "content": content}], max_tokens=4, temperature=0
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
        counts.append(answer.usage.prompt_tokens)
    assert counts[1] >= counts[0] + 4


def _upload(served: Served, content: bytes) -> httpx.Response:
    with served.client() as client:
        return client.post(
            "/v1/audio/transcriptions",
            data={"model": "tiny-whisper"},
            files={"file": ("noise.wav", content)},
        )
