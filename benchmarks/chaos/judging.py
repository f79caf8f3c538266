"""Pure: was what a client saw a complete answer, or a proper error, or is something wrong?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.asking import Ask, Manner
from benchmarks.chaos.clients import Seen

END_MARKS = {
    "/v1/chat/completions": ("[DONE]",),
    "/v1/completions": ("[DONE]",),
    "/v1/responses": ("[DONE]", "response.completed", "response.incomplete"),
    "/v1/messages": ("message_stop",),
}
"""What the last event of a whole stream has in its data."""

NEVER_TOLD = frozenset({"internal_error", "invalid_request", "wrong_model_kind", "not_found"})
"""Codes that no request may get which is well formed."""

RESULTS = {"/v1/embeddings": "data", "/rerank": "results", "/v1/rerank": "results", "/v2/rerank": "results"}

CUT = "cut by the supervisor's end"

EARLY_SECONDS = 0.5
"""Before a SIGTERM: a request may still be on its way through the kernel."""


@dataclass(slots=True)
class Outage:
    """The server was ended, and was not there until it was started again."""

    began: float
    killed: bool
    ended: float = float("inf")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request came to.

    Attributes:
        outcome: a word or two, for the table.
        wrong: what must not be; None if all is well.
    """

    outcome: str
    wrong: str | None = None


class Wrong(Exception):
    """What a client saw must not be; the message says why."""


def judge(ask: Ask, seen: Seen, outages: Sequence[Outage]) -> Verdict:
    """One request."""
    if seen.hung:
        return Verdict("hung", f"no end after {seen.ended - seen.began:.0f} s")
    if ask.manner is Manner.SHOUTS:
        return Verdict("no HTTP")
    if seen.broke is not None and is_excused(ask, seen, outages):
        return Verdict(CUT)
    if seen.left:
        return Verdict("left by its client")
    try:
        return Verdict(_outcome(ask, seen))
    except Wrong as wrong:
        return Verdict("wrong", str(wrong))


def is_excused(ask: Ask, seen: Seen, outages: Sequence[Outage]) -> bool:
    """Whether the supervisor's end explains a broken connection.

    SIGKILL breaks every connection. After SIGTERM only those may break that had just come, and those whose
    client does not take what it is sent.
    """
    for each in outages:
        overlaps = seen.began <= each.ended and seen.ended >= each.began
        late = seen.began >= each.began - EARLY_SECONDS or ask.manner is Manner.SLOW
        if overlaps and (each.killed or late):
            return True
    return False


def _outcome(ask: Ask, seen: Seen) -> str:
    if seen.status is None:
        raise Wrong(f"no answer: {seen.broke}")
    if ask.refused_with:
        return _refusal(ask, seen)
    if seen.status != 200:
        if seen.status == 202 and ask.path == "/admin/load":
            return "complete"
        return _error_answer(ask, seen)
    if ask.path == "/admin/events":
        return "complete"  # it ends when the server does
    if ask.stream:
        return _stream(ask, seen)
    if seen.broke is not None:
        if ask.model is None or ask.model.bystander:
            raise Wrong(f"a plain answer broke off: {seen.broke}")
        return "broke off after its header"
    return _plain(ask, seen)


def _refusal(ask: Ask, seen: Seen) -> str:
    if seen.status not in ask.refused_with:
        raise Wrong(f"status {seen.status}, not one of {ask.refused_with}: {_shown(seen)}")
    _error_of(_json(seen), seen)
    return "rubbish refused"


def _error_answer(ask: Ask, seen: Seen) -> str:
    if seen.broke is not None:
        raise Wrong(f"an error answer broke off: {seen.broke}")
    code = _error_of(_json(seen), seen)
    if seen.headers.get("x-request-id") != ask.request_id:
        raise Wrong(f"its request id was lost: {seen.headers.get('x-request-id')}")
    if code in NEVER_TOLD:
        raise Wrong(f"an error that it does not deserve: {_shown(seen)}")
    if (
        ask.path == "/v1/messages"
        and "x-fake-model" not in seen.headers
        and '"type": "error"' not in _text(seen)
    ):
        raise Wrong(f"not Anthropic's error: {_shown(seen)}")
    return _of_a_model(ask, f"error {seen.status} {code}")


def _plain(ask: Ask, seen: Seen) -> str:
    answer = _json(seen)
    if ask.model is None:
        return "complete"
    _check_origin(ask, seen)
    named = answer.get("model") if isinstance(answer, dict) else None
    if named is not None and named not in ask.model.names:
        raise Wrong(f"the answer of {named!r}")
    results = RESULTS.get(ask.path)
    if ask.count is not None and results is not None and len(answer.get(results, ())) != ask.count:
        raise Wrong(f"not {ask.count} results: {_shown(seen)}")
    return "complete"


def _stream(ask: Ask, seen: Seen) -> str:
    if not seen.headers.get("content-type", "").startswith("text/event-stream"):
        raise Wrong(f"no event stream: {_shown(seen)}")
    if seen.broke is not None:
        raise Wrong(f"the stream broke off without a word: {seen.broke}")
    events = stream_events(bytes(seen.body))
    _check_origin(ask, seen)
    if not events:
        raise Wrong("an empty stream")
    last = events[-1]
    if '"error"' in last:
        try:
            error = json.loads(last.partition("data: ")[2])
        except ValueError:
            raise Wrong(f"its last event is no JSON: {last[:200]!r}") from None
        if ask.path == "/v1/messages" and not last.startswith("event: error\n"):
            raise Wrong(f"not Anthropic's error event: {last[:200]!r}")
        # The event before the error may have broken off in its middle.
        _check_events(ask, events[:-2])
        return _of_a_model(ask, f"error event {_error_of(error, seen)}")
    if not any(mark in last for mark in END_MARKS[ask.path]):
        raise Wrong(f"the stream ended without its end mark: {last[:200]!r}")
    _check_events(ask, events)
    return "complete"


def stream_events(body: bytes) -> list[str]:
    """The events of an event stream, without comments."""
    blocks = body.decode(errors="replace").replace("\r\n", "\n").split("\n\n")
    lines = [[line for line in block.split("\n") if line and not line.startswith(":")] for block in blocks]
    return ["\n".join(block) for block in lines if block]


def _check_events(ask: Ask, events: Sequence[str]) -> None:
    """Nothing is missing, doubled, or another model's."""
    expected = 0
    for each in events:
        if any(mark in each for mark in END_MARKS[ask.path]):
            continue
        try:
            event = json.loads(each.partition("data: ")[2])
        except ValueError:
            raise Wrong(f"an event that is no JSON: {each[:200]!r}") from None
        named = event.get("model")
        if ask.model is not None and named is not None and named not in ask.model.names:
            raise Wrong(f"a piece of {named!r}")
        if event.get("id") == "fake":  # it numbers its tokens
            text = event["choices"][0].get("text") or event["choices"][0]["delta"]["content"]
            if text.split()[0] != f"token{expected}":
                raise Wrong(f"token{expected} is missing, there is {text[:20]!r}")
            expected += 1


def _check_origin(ask: Ask, seen: Seen) -> None:
    """What the fake engine tells of the request that reached it."""
    if "x-fake-model" not in seen.headers or ask.model is None:
        return
    if seen.headers["x-fake-model"] != ask.model.id:
        raise Wrong(f"the answer of {seen.headers['x-fake-model']!r}")
    if seen.headers.get("x-fake-echo") != ask.request_id:
        raise Wrong(f"the answer to request {seen.headers.get('x-fake-echo')!r}")
    if seen.headers["x-fake-body"] != hashlib.sha256(ask.body or b"").hexdigest():
        raise Wrong("the worker got another body")


def _of_a_model(ask: Ask, outcome: str) -> str:
    """Errors are well as long as they are not a bystander's, who has no part in what goes wrong.

    Two are everybody's: a server that ends tells so, and a client that is too slow is cut at a drain.
    """
    told = "shutting_down" in outcome or "cut" in outcome or ask.manner is Manner.SLOW
    if ask.model is not None and ask.model.bystander and not told:
        raise Wrong(f"a model to which nothing was done: {outcome}")
    return outcome


def _error_of(answer: Any, seen: Seen) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        raise Wrong(f"not an error of OpenAI's shape: {_shown(seen)}")
    return str(error.get("code", error.get("type", "")))


def _json(seen: Seen) -> Any:
    try:
        return json.loads(seen.body)
    except ValueError:
        raise Wrong(f"no JSON: {_shown(seen)}") from None


def _text(seen: Seen) -> str:
    return seen.body.decode(errors="replace")


def _shown(seen: Seen) -> str:
    return f"{seen.status} {_text(seen)[:300]!r}"
