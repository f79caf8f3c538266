"""The own server's program: the standard library's http.server, as somebody would write it in an hour."""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("I", " am", " my", " own", ".")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="own")
    parser.add_argument("--file", help="told in every answer")
    parser.add_argument("--demand", help="answers 401 without this key")
    parser.add_argument("--ready-seconds", type=float, default=0.0, help="/ready is 503 before")
    parser.add_argument("--deaf-to-sigterm", action="store_true", help="ends by SIGINT only")
    parser.add_argument("--in-a-child", action="store_true", help="a process below it listens")
    options = parser.parse_args()
    if options.in_a_child:
        rest = [each for each in sys.argv[1:] if each != "--in-a-child"]
        sys.exit(subprocess.call([sys.executable, __file__, *rest], start_new_session=True))
    if options.deaf_to_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: (print("ended by SIGINT", flush=True), os._exit(0)))
    server = ThreadingHTTPServer(("127.0.0.1", options.port), handler(options))
    print("the own server listens", flush=True)
    server.serve_forever()


def handler(options: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    ready_at = time.monotonic() + options.ready_seconds

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/ready":
                self.answer(200 if time.monotonic() >= ready_at else 503, {})
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if options.demand and self.headers["authorization"] != f"Bearer {options.demand}":
                self.answer(401, {"error": {"message": "no key"}})
            elif body.get("stream"):
                self.stream()
            else:
                message = {"role": "assistant", "content": "".join(WORDS)}
                self.answer(200, {**self.told(), "choices": [{"index": 0, "message": message}]})

        def told(self) -> dict[str, Any]:
            return {
                "model": options.name,
                "file": options.file,
                "pid": os.getpid(),
                "variable": os.environ.get("OWN_VARIABLE"),
                "key": os.environ.get("LOCAL_LLM_WORKER_KEY"),
                "authorization": self.headers["authorization"],
            }

        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for word in WORDS:
                chunk = {"model": options.name, "choices": [{"index": 0, "delta": {"content": word}}]}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    main()
