"""The fake engine's program: standard library only, so that it answers in a tenth of a second.

Every answer to a POST has these headers, by which tests know what reached the worker:
    x-fake-model    the id it serves
    x-fake-pid      its process id
    x-fake-body     the SHA-256 of the body as received
    x-fake-headers  the names of the headers as received, sorted, comma-separated, lower case
    x-fake-query    the query string as received
    x-fake-adapter  the folder of the LoRA adapter that the request's model names, if it does
    x-fake-echo     the value of the request's header x-echo, if it has one

`GET /metrics` has `vllm:num_requests_running` and `vllm:generation_tokens_total`, as vLLM does.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import mmap
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path


def flags() -> argparse.ArgumentParser:
    """How it can be made to misbehave; the same names with underscores in `fake.json`."""
    parser = argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    seconds, number = {"type": float}, {"type": int}
    parser.add_argument("--slow-start", **seconds, help="listens only after so many seconds")
    parser.add_argument("--never-ready", action="store_true", help="listens, /health stays 503")
    parser.add_argument("--hang-health", action="store_true", help="accepts /health, never answers it")
    parser.add_argument("--die-at-start", **number, help="prints two lines and exits with this code")
    parser.add_argument("--say", help="a line for the log at the start (before --die-at-start)")
    parser.add_argument("--log-lines", nargs="+", help="written one by one before it listens")
    parser.add_argument("--line-seconds", **seconds, help="between those lines; default 0")
    parser.add_argument("--babble", help="a line that it writes twenty times a second, for ever")
    parser.add_argument("--read-on", action="store_true", help="reads 100 MB a second, for ever")
    parser.add_argument("--sick-after", **number, help="/health is 503 after so many answered POSTs")
    parser.add_argument("--wrong-name", action="store_true", help="serves another model's name")
    parser.add_argument("--garbage", action="store_true", help="answers every connection with no HTTP")
    parser.add_argument("--garbage-answers", action="store_true", help="is ready, answers POSTs with no HTTP")
    parser.add_argument("--crash-after", **number, help="SIGKILLs itself after so many answered POSTs")
    parser.add_argument("--die-mid-stream", **number, help="SIGKILLs itself after so many chunks")
    parser.add_argument("--die-mid-answer", action="store_true", help="SIGKILLs itself in a plain answer")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--stop-seconds", **seconds, help="takes so long over SIGTERM")
    parser.add_argument("--leak-child", action="store_true", help="a setsid'd daemon that ignores SIGTERM")
    parser.add_argument("--leak-shm", action="store_true", help="a mapped segment that it never unlinks")
    parser.add_argument("--fill-log", **number, help="writes so many bytes without a line's end at start")
    parser.add_argument("--answer-seconds", **seconds, help="before the first byte of an answer to a POST")
    parser.add_argument("--chunks", **number, help="of a stream; default 5")
    parser.add_argument("--chunk-seconds", **seconds, help="between chunks; default 0")
    parser.add_argument("--chunk-bytes", **number, help="of text in each chunk, at least; default 0")
    parser.add_argument("--status", **number, help="every POST is answered with this status and an error")
    return parser


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Engine:
    def __init__(
        self, model: Path, names: list[str], options: argparse.Namespace, adapters: dict[str, str]
    ) -> None:
        self.model, self.names, self.options = model, [*names, *adapters], options
        self.adapters = adapters
        self.key = os.environ.get("LOCAL_LLM_WORKER_KEY")
        self.running = self.tokens = self.answered = 0

    async def serve(self, port: int) -> None:
        busy = asyncio.ensure_future(self.be_busy())
        for line in getattr(self.options, "log_lines", ()):
            print(line, flush=True)
            await asyncio.sleep(getattr(self.options, "line_seconds", 0))
        await asyncio.sleep(getattr(self.options, "slow_start", 0))
        server = await asyncio.start_server(self.connection, "127.0.0.1", port, limit=64 << 20)
        print(f"serving {self.names[0]} on {port}", flush=True)
        async with server:
            await asyncio.gather(server.serve_forever(), busy)

    async def be_busy(self) -> None:
        while hasattr(self.options, "babble") or hasattr(self.options, "read_on"):
            if hasattr(self.options, "babble"):
                print(self.options.babble, flush=True)
            if hasattr(self.options, "read_on"):
                await asyncio.to_thread(read_zeros)
            await asyncio.sleep(0.05)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not hasattr(self.options, "garbage"):
                request = await read_request(reader)
                await self.answer(request, reader, writer)
                await writer.drain()
            writer.write(b"\x00garbage\xff\n")
            await writer.drain()
        writer.close()

    async def answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return send(writer, 401, {"error": {"message": "no key"}})
        if request.path == "/health":
            if hasattr(self.options, "hang_health"):
                await asyncio.sleep(3600)
            return send(writer, 503 if self.is_sick() else 200, {})
        if request.path == "/v1/models":
            return send(writer, 200, {"object": "list", "data": [{"id": name} for name in self.names]})
        if request.path == "/metrics":
            gauge = f"vllm:num_requests_running {self.running}\nvllm:generation_tokens_total {self.tokens}\n"
            return send(writer, 200, gauge.encode(), {"content-type": "text/plain"})
        if request.method == "POST" and hasattr(self.options, "garbage_answers"):
            return writer.write(b"\x00garbage\xff\n")
        if request.method == "POST":
            return await self.generate_while_listened_to(request, reader, writer)
        return send(writer, 404, {"error": {"message": "no such path"}})

    def is_sick(self) -> bool:
        sick_after = getattr(self.options, "sick_after", None)
        return hasattr(self.options, "never_ready") or (
            sick_after is not None and self.answered >= sick_after
        )

    async def generate_while_listened_to(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A client that leaves stops its generation; nobody sends a second request before an answer."""
        generation = asyncio.ensure_future(self.generate(request, writer))
        leaving = asyncio.ensure_future(until_left(reader))
        self.running += 1
        try:
            await asyncio.wait((generation, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.running -= 1
            left = not generation.done()
            for each in (generation, leaving):
                each.cancel()
            await asyncio.wait((generation, leaving))
        if left:
            raise ConnectionResetError
        generation.result()
        self.answered += 1
        if self.answered == getattr(self.options, "crash_after", None):
            await writer.drain()
            os.kill(os.getpid(), signal.SIGKILL)

    async def generate(self, request: Request, writer: asyncio.StreamWriter) -> None:
        headers = {
            "x-fake-model": self.names[0],
            "x-fake-pid": str(os.getpid()),
            "x-fake-body": hashlib.sha256(request.body).hexdigest(),
            "x-fake-headers": ",".join(sorted(request.headers)),
            "x-fake-query": request.query,
        }
        if "x-echo" in request.headers:
            headers["x-fake-echo"] = request.headers["x-echo"]
        try:
            body = json.loads(request.body)
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        if b'name="stream"\r\n\r\ntrue\r\n' in request.body:  # a form's
            body["stream"] = True
        if body.get("model") in self.adapters:
            headers["x-fake-adapter"] = self.adapters[body["model"]]
        await asyncio.sleep(getattr(self.options, "answer_seconds", 0))
        status = getattr(self.options, "status", 200)
        if status != 200:
            return send(writer, status, {"error": {"message": "as told", "code": status}}, headers)
        if body.get("stream"):
            return await self.stream(request.path, writer, headers)
        self.tokens += 1
        answer = ANSWERS.get(request.path)
        if answer is None:
            return send(writer, 404, {"error": {"message": "no such path"}}, headers)
        if hasattr(self.options, "die_mid_answer"):
            send_head(writer, 200, {"content-type": "application/json", "content-length": "100", **headers})
            writer.write(b'{"id": "fa')
            await writer.drain()
            os.kill(os.getpid(), signal.SIGKILL)
        return send(writer, 200, answer(body, self.names[0]), headers)

    async def stream(self, path: str, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}
        send_head(writer, 200, head)
        padding = "x" * getattr(self.options, "chunk_bytes", 0)
        for number in range(getattr(self.options, "chunks", 5)):
            if number == getattr(self.options, "die_mid_stream", None):
                await writer.drain()
                os.kill(os.getpid(), signal.SIGKILL)
            send_chunk(writer, event(path, self.names[0], f"token{number} {padding}"))
            await writer.drain()
            self.tokens += 1
            await asyncio.sleep(getattr(self.options, "chunk_seconds", 0))
        end = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
        send_chunk(writer, end if path == "/v1/messages" else b"data: [DONE]\n\n")
        send_chunk(writer, b"")


def event(path: str, model: str, text: str) -> bytes:
    if path == "/v1/messages":
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        return b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n"
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    if path == "/v1/completions":
        choice = {"index": 0, "text": text, "finish_reason": None}
    name = "text_completion" if path == "/v1/completions" else "chat.completion.chunk"
    chunk = {"id": "fake", "object": name, "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def chat(body: dict, model: str) -> dict:
    message = {"role": "assistant", "content": f"I am {model}"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    fields = {"id": "fake", "object": "chat.completion", "created": 1, "model": body.get("model", model)}
    return {**fields, "choices": [choice], "usage": USAGE}


def completion(body: dict, model: str) -> dict:
    choice = {"index": 0, "text": f"I am {model}", "finish_reason": "stop"}
    fields = {"id": "fake", "object": "text_completion", "created": 1, "model": body.get("model", model)}
    return {**fields, "choices": [choice], "usage": USAGE}


def responses(body: dict, model: str) -> dict:
    content = [{"type": "output_text", "text": f"I am {model}", "annotations": []}]
    output = [{"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": content}]
    return {"id": "fake", "object": "response", "status": "completed", "model": model, "output": output}


def messages(body: dict, model: str) -> dict:
    content = [{"type": "text", "text": f"I am {model}"}]
    usage = {"input_tokens": 1, "output_tokens": 1}
    fields = {"id": "fake", "type": "message", "role": "assistant", "model": model}
    return {**fields, "content": content, "stop_reason": "end_turn", "usage": usage}


def embeddings(body: dict, model: str) -> dict:
    texts = body.get("input")
    count = len(texts) if isinstance(texts, list) else 1
    data = [{"object": "embedding", "index": at, "embedding": [1.0, float(at)]} for at in range(count)]
    return {"object": "list", "model": body.get("model", model), "data": data, "usage": USAGE}


def rerank(body: dict, model: str) -> dict:
    documents = body.get("documents", [])
    results = [{"index": at, "relevance_score": 1 / (at + 1)} for at in range(len(documents))]
    return {"id": "fake", "model": model, "results": results}


def score(body: dict, model: str) -> dict:
    return {"id": "fake", "object": "list", "model": model, "data": [{"index": 0, "score": 0.5}]}


def classify(body: dict, model: str) -> dict:
    data = [{"index": 0, "label": "LABEL_1", "probs": [0.1, 0.7, 0.2], "num_classes": 3}]
    return {"id": "fake", "object": "list", "created": 1, "model": model, "data": data, "usage": USAGE}


def transcribe(body: dict, model: str) -> dict:
    return {"text": f"I am {model}", "usage": {"type": "duration", "seconds": 1}}


ANSWERS = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": lambda body, model: {"input_tokens": 1},
    "/tokenize": lambda body, model: {"count": 1, "max_model_len": 2048, "tokens": [1]},
    "/detokenize": lambda body, model: {"prompt": "text"},
    "/v1/embeddings": embeddings,
    "/rerank": rerank,
    "/v1/rerank": rerank,
    "/v2/rerank": rerank,
    "/score": score,
    "/v1/score": score,
    "/classify": classify,
    "/v1/classify": classify,
    "/v1/audio/transcriptions": transcribe,
    "/v1/audio/translations": transcribe,
}


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b"".join([chunk async for chunk in read_chunks(reader)])
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, body)


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass


async def until_left(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof():
        if not await reader.read(1):
            return


def send(
    writer: asyncio.StreamWriter, status: int, body: dict | bytes, headers: dict[str, str] | None = None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    send_head(
        writer,
        status,
        {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})},
    )
    writer.write(data)


def send_head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    headers = {"date": formatdate(usegmt=True), **headers}
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def read_zeros() -> None:
    with Path("/dev/zero").open("rb") as zeros:
        zeros.read(5 << 20)


def leak_child() -> None:
    """A daemon by the book: forked twice, a session of its own, deaf to SIGTERM."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(f"leaked child {os.getpid()}", flush=True)
            while True:
                time.sleep(3600)
        os._exit(0)
    os.wait()


def leak_shared_memory() -> mmap.mmap:
    path = Path("/dev/shm") / f"fake-engine-{os.environ.get('FAKE_ENGINE_MARK', 'x')}-{uuid.uuid4().hex}"
    with path.open("x+b") as file:
        file.truncate(1 << 20)
        return mmap.mmap(file.fileno(), 1 << 20)


def misbehave_at_start(options: argparse.Namespace) -> None:
    if hasattr(options, "ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif hasattr(options, "stop_seconds"):
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(options.stop_seconds), os._exit(0)))
    if hasattr(options, "leak_child"):
        leak_child()
    if hasattr(options, "fill_log"):
        block = b"x" * 65_536
        for _ in range(options.fill_log // len(block)):
            sys.stdout.buffer.write(block)
        sys.stdout.flush()
    if hasattr(options, "say"):
        print(options.say, flush=True)
    if hasattr(options, "die_at_start"):
        print("about to die", flush=True)
        print("dying as told", file=sys.stderr, flush=True)
        sys.exit(options.die_at_start)


def main() -> None:
    # argv: -m MODULE [MODEL] --served-model-name NAME... --port N ..., as the supervisor writes it.
    module, *rest = sys.argv[2:]
    if module == "local_llm_worker.template":
        os.execv(sys.executable, [sys.executable, str(Path(__file__).with_name("template.py")), *rest])
    parser = flags()
    if module == "local_llm_worker.vllm_serve":
        parser.add_argument("model", type=Path)
    else:
        parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--served-model-name", "--served-name", dest="names", nargs="+", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lora-modules", nargs="+", type=json.loads, default=[])
    given, _ = parser.parse_known_args(rest)
    told = given.model / "fake.json"
    folder_flags = json.loads(told.read_text()) if told.exists() else {}
    options = argparse.Namespace(
        **{name: value for name, value in folder_flags.items() if value is not False}
    )
    for name, value in vars(given).items():
        setattr(options, name, value)
    misbehave_at_start(options)
    kept = leak_shared_memory() if hasattr(options, "leak_shm") else None
    names = ["somebody-else"] if hasattr(options, "wrong_name") else given.names
    adapters = {each["name"]: each["path"] for each in given.lora_modules}
    asyncio.run(Engine(given.model, names, options, adapters).serve(given.port))
    del kept


if __name__ == "__main__":
    main()
