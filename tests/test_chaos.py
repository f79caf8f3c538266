"""`make chaos` works, and notices what it is there to notice."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.asking import Ask, Manner, draw
from benchmarks.chaos.clients import Seen
from benchmarks.chaos.folders import FAKE_MODELS
from benchmarks.chaos.judging import CUT, Outage, judge

CHAT = "/v1/chat/completions"
STONE, OAK = FAKE_MODELS[:2]
PLAIN = Ask("r1", CHAT, b"{}", model=OAK)
STREAM = Ask("r1", CHAT, b"{}", model=OAK, stream=True)
TO_STONE = Ask("r1", CHAT, b"{}", model=STONE)
ERROR = json.dumps({"error": {"message": "it died", "type": "server_error", "code": "worker_died"}})
BUG = ERROR.replace("worker_died", "internal_error")
WHOLE = json.dumps({"model": "oak", "choices": []})


def answer(
    body: str, status: int = 200, *, broke: str | None = None, model: str = "oak", request_id: str = "r1"
) -> Seen:
    """What a client saw: a worker's answer, or an error of the server."""
    headers = {"content-type": "text/event-stream" if body[0] in "d:" else "application/json"}
    if status == 200:
        body_hash = hashlib.sha256(b"{}").hexdigest()
        headers |= {"x-fake-model": model, "x-fake-echo": request_id, "x-fake-body": body_hash}
    headers["x-request-id"] = request_id
    return Seen(10.0, 11.0, 12.0, status, headers, bytearray(body.encode()), broke)


def stream(*events: str) -> str:
    """An event stream."""
    return "".join(f"data: {each}\n\n" for each in events)


def token(number: int, model: str = "oak") -> str:
    """A piece of the fake engine's stream."""
    choice = {"index": 0, "delta": {"content": f"token{number} "}}
    return json.dumps({"id": "fake", "model": model, "choices": [choice]})


def test_a_short_chaos() -> None:
    """Storm, calm, storm, calm, with a supervisor that is ended: nothing is wrong, and nothing left."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--seconds", "8", "--seed", "1"]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "violations                   0" in run.stdout
    assert "supervisor SIG" in run.stdout


def test_a_seed_repeats_the_decisions() -> None:
    """Every client asks the same again."""

    def asked() -> list[Ask]:
        chance = random.Random("7/client 3")
        return [draw(chance, f"c3-{number}", FAKE_MODELS, longest=100) for number in range(200)]

    assert asked() == asked()
    assert {ask.manner for ask in asked()} == set(Manner)


@pytest.mark.parametrize(
    ("ask", "seen", "outcome"),
    [
        (PLAIN, answer(WHOLE), "complete"),
        (PLAIN, answer(ERROR, 502), "error 502 worker_died"),
        (PLAIN, answer(WHOLE[:9], broke="ClientPayloadError"), "broke off after its header"),
        (STREAM, answer(stream(token(0), token(1), "[DONE]")), "complete"),
        (STREAM, answer(": waits\n\n" + stream(token(0), "[DONE]")), "complete"),
        (STREAM, answer(stream(token(0), ERROR)), "error event worker_died"),
        (STREAM, answer(stream(token(0)) + 'data: {"id\n\n' + stream(ERROR)), "error event worker_died"),
    ],
)
def test_what_is_well(ask: Ask, seen: Seen, outcome: str) -> None:
    """A full answer, or an error in the way that was still open."""
    verdict = judge(ask, seen, [])
    assert (verdict.outcome, verdict.wrong) == (outcome, None)


@pytest.mark.parametrize(
    ("ask", "seen", "reason"),
    [
        (PLAIN, answer(WHOLE, model="north/elm"), "the answer of 'north/elm'"),
        (PLAIN, answer(WHOLE, request_id="r2"), "the answer to request 'r2'"),
        (PLAIN, answer(WHOLE[:9]), "no JSON"),
        (PLAIN, answer('{"detail": "no"}', 502), "not an error of OpenAI's shape"),
        (PLAIN, answer(BUG, 500), "does not deserve"),
        (PLAIN, Seen(10.0, ended=12.0, broke="ServerDisconnectedError"), "no answer"),
        (TO_STONE, answer(ERROR, 502), "nothing was done"),
        (STREAM, answer(stream(token(0))), "without its end mark"),
        (STREAM, answer(stream(token(0), token(2), "[DONE]")), "token1 is missing"),
        (STREAM, answer(stream(token(0, "elm"), "[DONE]")), "a piece of 'elm'"),
        (STREAM, answer(stream(token(0)), broke="ClientPayloadError"), "without a word"),
        (STREAM, answer(": waits\n\n"), "an empty stream"),
    ],
)
def test_what_is_wrong(ask: Ask, seen: Seen, reason: str) -> None:
    """Another's answer, half of one, a silent end, a mistake in the server."""
    assert reason in (judge(ask, seen, []).wrong or "")


@pytest.mark.parametrize(
    ("outage", "excused"),
    [
        (Outage(11.0, killed=True, ended=20.0), True),
        (Outage(1.0, killed=True, ended=9.0), False),
        (Outage(11.0, killed=False, ended=20.0), False),  # it was there in time to be answered
        (Outage(9.0, killed=False, ended=20.0), True),
    ],
)
def test_what_the_end_of_the_supervisor_excuses(outage: Outage, excused: bool) -> None:
    """Connections break at a SIGKILL; after SIGTERM only those that come too late."""
    verdict = judge(PLAIN, Seen(10.0, ended=12.0, broke="ServerDisconnectedError"), [outage])
    assert (verdict.outcome == CUT) is excused
