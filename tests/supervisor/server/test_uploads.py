"""Uploads through the whole server: to the right worker, byte for byte, and never in memory."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.gateway.forms import END, HEADERS, form, part
from tests.supervisor.server.stage import (
    CHAT,
    asking,
    connect,
    engine_processes,
    health,
    loads,
    read_answer,
    request_bytes,
    running,
    the_engine,
    until,
)

PATHS = ["/v1/audio/transcriptions", "/v1/audio/translations"]
MAX_UPLOAD = 128 << 20
LARGE = 100 << 20
CONTENT_TYPE = HEADERS[0][1]
SOUND = random.Random(0).randbytes(1 << 20)
KINDS: dict[str, dict[str, Any]] = {
    "org/whisper": {"kind": "transcription"},
    "slow": {"kind": "transcription", "slow_start": 1.0},
    "never": {"kind": "transcription", "slow_start": 600},
    "chat": {},
    "classifier": {"kind": "classifier"},
    "looks": {"kind": "vision-language"},
}


@pytest.fixture(scope="module")
def spools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's temporary files lie; a short path, since engines have sockets below it."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, spools: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("uploads")
    for name, flags in KINDS.items():
        write_fake_model(folder / "models", name, **flags)
    with running(
        folder,
        {"TMPDIR": str(spools)},
        max_upload_bytes=MAX_UPLOAD,
        aliases={"dictation": "org/whisper"},
        load={"stream_feedback_after_seconds": 0.2},
    ) as served:
        yield served


def post(served: Served, path: str, body: Any) -> httpx.Response:
    with served.client() as client:
        return client.post(path, content=body, headers={"content-type": CONTENT_TYPE.decode()})


def spooled(served: Served, spools: Path) -> list[str]:
    """The server's open files without a name."""
    found = []
    for each in Path(f"/proc/{served.process.pid}/fd").iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith(str(spools)) and target.endswith("(deleted)"):
            found.append(target)
    return found


def most_memory_bytes(served: Served) -> int:
    """The supervisor's largest resident size since it was last reset."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("model_first", [True, False], ids=["model first", "file first"])
@pytest.mark.parametrize("model", ["org/whisper", "whisper", "dictation"])
def test_the_very_bytes_reach_the_worker(served: Served, path: str, model_first: bool, model: str) -> None:
    """By any of the model's names, wherever in the form it stands."""
    parts = [part("model", model), part("file", SOUND, filename="a.wav")]
    body = form(*(parts if model_first else reversed(parts)))
    answer = post(served, path, body)
    assert answer.json()["text"] == "I am org/whisper"
    assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()
    assert "content-type" in answer.headers["x-fake-headers"].split(",")


def test_chunked_without_a_length(served: Served) -> None:
    """The worker gets it with its length."""
    body = form(part("file", SOUND, filename="a.wav"), part("model", "whisper"))
    answer = post(served, PATHS[0], iter([body[:100_000], body[100_000:]]))
    assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()
    assert "content-length" in answer.headers["x-fake-headers"].split(",")


def test_openais_client(served: Served) -> None:
    """Both of its calls; OpenAI gives the second up, and people still use it."""
    file = ("speech.wav", SOUND)
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        assert client.audio.transcriptions.create(model="whisper", file=file).text == "I am org/whisper"
        with pytest.deprecated_call():
            translation = client.audio.translations.create(model="whisper", file=file)
    assert translation.text == "I am org/whisper"


def large_body() -> Iterator[bytes]:
    yield part("file", b"", filename="long.wav")[:-2]
    for _ in range(LARGE // len(SOUND)):
        yield SOUND
    yield b"\r\n" + part("model", "whisper") + END


def test_a_large_upload_is_never_in_memory(served: Served, spools: Path) -> None:
    """100 MiB through, byte for byte; the supervisor stays as small as it was."""
    post(served, PATHS[0], form(part("model", "whisper")))
    Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")  # the largest size begins anew
    before = most_memory_bytes(served)
    answer = post(served, PATHS[0], large_body())
    digest = hashlib.sha256()
    for piece in large_body():
        digest.update(piece)
    assert answer.headers["x-fake-body"] == digest.hexdigest()
    assert most_memory_bytes(served) - before < 12 << 20
    assert spooled(served, spools) == []


def test_while_it_waits_it_lies_on_disk_without_a_name(served: Served, spools: Path) -> None:
    """And is gone when its client leaves."""
    connection = connect(served)
    body = form(part("model", "never"), part("file", SOUND, filename="a.wav"))
    connection.sendall(request_bytes(PATHS[0], body, b"Content-Type: " + CONTENT_TYPE))
    until(lambda: health(served)["waiting"] == {"never": 1})
    assert len(spooled(served, spools)) == 1
    assert [each for each in spools.rglob("*") if each.is_file() and each.stat().st_size >= len(SOUND)] == []
    connection.close()
    until(lambda: health(served)["waiting"] == {} and spooled(served, spools) == [])


def test_a_client_that_leaves_in_the_middle(served: Served, spools: Path) -> None:
    """Nothing of its upload stays, and no worker was asked for."""
    mark = len(served.log)
    connection = connect(served)
    body = form(part("model", "slow"), part("file", SOUND, filename="a.wav"))
    request = request_bytes(PATHS[0], body, b"Content-Type: " + CONTENT_TYPE)
    connection.sendall(request[: len(request) // 2])
    until(lambda: len(spooled(served, spools)) == 1)
    connection.close()
    until(lambda: spooled(served, spools) == [])
    served.wait_for_log(PATHS[0], after=mark, status=499, model=None)
    assert "slow" not in loads(served, mark)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_one_that_is_too_large(served: Served, spools: Path, chunked: bool) -> None:
    """413 while the client still sends, and the setting is named."""
    piece = b"x" * (1 << 20)
    with connect(served) as connection:
        if chunked:
            headers = [b"Content-Type: " + CONTENT_TYPE, b"Transfer-Encoding: chunked"]
            connection.sendall(request_bytes(PATHS[0], b"", *headers))
            start = part("model", "whisper") + part("file", b"", filename="a.wav")[:-2]
            for each in [start, *[piece] * 129]:
                connection.sendall(b"%x\r\n%b\r\n" % (len(each), each))
        else:
            length = b"Content-Length: %d" % (MAX_UPLOAD + 1)
            request = request_bytes(PATHS[0], b"", b"Content-Type: " + CONTENT_TYPE, length)
            connection.sendall(request.replace(b"\r\nContent-Length: 0\r\n", b"\r\n"))
        answer = read_answer(connection)
    assert (answer.status, b"max_upload_bytes" in answer.body) == (413, True)
    until(lambda: spooled(served, spools) == [])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "said"),
    [
        (b'{"model": "whisper"}', "application/json", 400, "invalid_request", "multipart/form-data"),
        (b'{"model": "whisper"}', CONTENT_TYPE.decode(), 400, "invalid_request", "multipart/form-data"),
        (form(part("model", "whisper")), "multipart/form-data", 400, "invalid_request", "no boundary"),
        (form(part("file", "x", filename="a")), None, 400, "invalid_request", "names no model"),
        (form(part("model", "a"), part("model", "b")), None, 400, "invalid_request", "two fields"),
        (part("model", "whisper"), None, 400, "invalid_request", "cut short"),
        (form(part("model", "wisper")), None, 404, "model_not_found", "whisper"),
        (form(part("model", "chat")), None, 400, "wrong_model_kind", "/v1/chat/completions"),
    ],
)
def test_what_is_wrong_is_told(
    served: Served, body: bytes, content_type: str | None, status: int, code: str, said: str
) -> None:
    """In OpenAI's shape, and the connection goes on."""
    headers = {"content-type": content_type or CONTENT_TYPE.decode()}
    with served.client() as client:
        answer = client.post(PATHS[0], content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert said in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200


def test_other_kinds_say_where_to_ask(served: Served) -> None:
    """A transcription model does not chat, a classifier does not score; what sees, chats."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking("whisper"))
        assert "/v1/audio/transcriptions" in answer.json()["error"]["message"]
        answer = client.post("/v1/score", json={"model": "classifier", "text_1": "a", "text_2": "b"})
        assert answer.json()["error"]["code"] == "wrong_model_kind"
        assert "It answers /classify, /v1/classify" in answer.json()["error"]["message"]
        for path in ("/classify", "/v1/classify"):
            answer = client.post(path, json={"model": "classifier", "input": "a"})
            assert answer.json()["data"][0]["label"] == "LABEL_1"
        assert client.post(CHAT, json=asking("looks")).headers["x-fake-model"] == "looks"


def test_a_waiting_stream_hears_what_it_waits_for(served: Served) -> None:
    """By the form's `stream`; who does not ask for a stream hears nothing before its answer."""
    body = form(part("file", SOUND, filename="a.wav"), part("stream", "true"), part("model", "slow"))
    lines = post(served, PATHS[0], body).text.splitlines()
    assert lines[0].startswith(": loading slow")
    assert [line for line in lines if line][-1] == "data: [DONE]"
    post(served, PATHS[0], form(part("model", "whisper")))
    answer = post(served, PATHS[0], form(part("model", "slow")))
    assert answer.json()["text"] == "I am slow"


def test_a_second_attempt_sends_the_same(served: Served) -> None:
    """The worker is gone when the upload would go to it: another is started and gets all of it."""
    body = form(part("model", "whisper"), part("file", SOUND, filename="a.wav"))
    post(served, PATHS[0], body)
    until(lambda: len(engine_processes(served)) == 1)
    os.kill(the_engine(served).process.pid, signal.SIGKILL)
    answer = post(served, PATHS[0], body)
    assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()
