"""From a request to inputs, and from rows to an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import numpy as np
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from local_llm_worker.pooling import answers
from local_llm_worker.pooling.classifying import Classifier
from local_llm_worker.pooling.embedding import EmbeddingModel
from local_llm_worker.pooling.engine import Engine
from local_llm_worker.pooling.errors import (
    BadRequest,
    BodyTooLarge,
    InputRejected,
    ModelNotFound,
)
from local_llm_worker.pooling.inputs import Input, TokenizeOptions
from local_llm_worker.pooling.loading import Model
from local_llm_worker.pooling.prompts import choose_prompt
from local_llm_worker.pooling.requests import (
    ClassificationRequest,
    EmbeddingRequest,
    PairRequest,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
    decode,
)
from local_llm_worker.pooling.reranking import Reranker
from local_llm_worker.pooling.token_ids import TokenIds, decode_openai_ids
from local_llm_worker.pooling.turns import Outcome

_Asked = TypeVar("_Asked", bound=PoolingRequest)
_AnyRequest = EmbeddingRequest | RerankRequest | ScoreRequest | ClassificationRequest

_encode = msgspec.json.Encoder().encode


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Endpoints:
    """Answers requests for one model.

    Args:
        model: is computed by `engine`.
        engine: runs while the application runs.
        served_names: what clients may call the model; the id first.
        token_ids: whose ids token arrays hold.
        max_body_bytes: of a request.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        *,
        served_names: Sequence[str],
        token_ids: TokenIds,
        max_body_bytes: int,
    ) -> None:
        self.engine = engine
        self._model = model
        self._served_names = served_names
        self._token_ids = token_ids
        self._max_body_bytes = max_body_bytes
        self._created = int(time.time())

    async def health(self, _request: Request) -> Response:
        """`GET /health`: 200, for the port is open only once the model is loaded."""
        return Response()

    async def models(self, _request: Request) -> Response:
        """`GET /v1/models`: the served names."""
        return json_response(answers.models(self._served_names, self._created, self._model.max_length))

    async def embed(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        asked = await self._read(request, EmbeddingRequest)
        model = self._model
        if not isinstance(model, EmbeddingModel):
            raise _other_kind(asked, model)
        _check_dimensions(asked.dimensions, model.size)
        inputs: Sequence[Any] = asked.inputs()
        with _naming_fields(asked):
            if isinstance(inputs[0], list) and self._token_ids is TokenIds.OPENAI:
                # Slow enough for others to notice, and no work for the engine's threads.
                inputs = await to_thread.run_sync(decode_openai_ids, inputs)
            outcome = await self._run(request, inputs, _embedding_options(model, asked, inputs))
        vectors = outcome.rows if asked.dimensions is None else answers.cut(outcome.rows, asked.dimensions)
        as_base64 = asked.encoding_format == "base64"
        return json_response(answers.embeddings(asked.model, vectors, outcome.tokens, as_base64=as_base64))

    async def rerank(self, request: Request) -> Response:
        """`POST /rerank`, `/v1/rerank` and `/v2/rerank`.

        As Jina's and vLLM's do, the first two return the documents unless told not to; as Cohere's does,
        the third returns them only if told to.
        """
        asked = await self._read(request, RerankRequest)
        pairs = asked.pairs()
        values, tokens = await self._score(request, asked, pairs)
        with_documents = asked.return_documents
        if with_documents is None:
            with_documents = not request.url.path.startswith("/v2/")
        answer = answers.ranking(
            asked.model, pairs, values, tokens, top_n=asked.top_n or 0, with_documents=with_documents
        )
        return json_response(answer)

    async def score(self, request: Request) -> Response:
        """`POST /score` and `/v1/score`."""
        asked = await self._read(request, ScoreRequest)
        values, tokens = await self._score(request, asked, asked.pairs())
        return json_response(answers.scores(asked.model, values, tokens))

    async def classify(self, request: Request) -> Response:
        """`POST /classify` and `/v1/classify`."""
        asked = await self._read(request, ClassificationRequest)
        model = self._model
        if not isinstance(model, Classifier):
            raise _other_kind(asked, model)
        conversation = asked.conversation()
        if conversation is None:
            inputs: Sequence[Any] = asked.inputs()
        else:
            inputs = [model.conversation(conversation, asked.template_arguments())]
        with _naming_fields(asked):
            outcome = await self._run(request, inputs, _classification_options(model, asked, inputs))
        raw, probabilities = np.hsplit(outcome.rows, 2)
        rows = raw if asked.use_activation is False else probabilities
        return json_response(answers.classifications(asked.model, model.labels, rows, outcome.tokens))

    async def _score(
        self, request: Request, asked: RerankRequest | ScoreRequest, pairs: Sequence[Input]
    ) -> tuple[list[float], int]:
        model = self._model
        if not isinstance(model, Reranker):
            raise _other_kind(asked, model)
        asked.check()
        with _naming_fields(asked):
            outcome = await self._run(request, pairs, _rerank_options(model, asked))
        column = Reranker.RAW if asked.use_activation is False else Reranker.ACTIVATED
        return outcome.rows[:, column].tolist(), outcome.tokens

    async def _read(self, request: Request, kind: type[_Asked]) -> _Asked:
        asked = decode(await _body(request, self._max_body_bytes), kind)
        if asked.model not in self._served_names:
            served = ", ".join(self._served_names)
            raise ModelNotFound(
                f"The model {asked.model[:100]!r} does not run here; what runs is {served}.", param="model"
            )
        return asked

    async def _run(self, request: Request, inputs: Sequence[Input], options: TokenizeOptions) -> Outcome:
        """Computes, unless the client leaves before.

        Raises:
            ClientLeft: it has.
        """
        computing = self.engine.submit(inputs, options)
        # A task group would do the same for a third of a request's cost beside its embedding.
        watch = asyncio.create_task(_cancel_when_left(request, computing))
        try:
            return await computing
        except asyncio.CancelledError:
            if watch.done():
                raise ClientLeft from None
            raise
        finally:
            watch.cancel()


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON."""
    return Response(_encode(content), status, headers, media_type="application/json")


async def _body(request: Request, max_bytes: int) -> bytes:
    """The whole body, counted while it comes in.

    Raises:
        BodyTooLarge: it is longer than `max_bytes`.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLarge(f"The body is over {max_bytes} bytes; send fewer inputs at once.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _cancel_when_left(request: Request, work: asyncio.Future[Outcome]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    work.cancel()


@contextmanager
def _naming_fields(asked: _AnyRequest) -> Iterator[None]:
    """Turns an input's number into the name that the client knows it by."""
    try:
        yield
    except InputRejected as error:
        field = asked.field_of(error.index)
        raise BadRequest(f"{field} {error.reason}", param=field) from None


def _other_kind(asked: PoolingRequest, model: Model) -> BadRequest:
    return BadRequest(f"{asked.model} is {model.WHAT}.", param="model")


def _check_dimensions(dimensions: int | None, size: int) -> None:
    if dimensions is not None and not 1 <= dimensions <= size:
        raise BadRequest(
            f"dimensions must be 1 to {size}, the size of this model's vectors.", param="dimensions"
        )


def _embedding_options(
    model: EmbeddingModel, asked: EmbeddingRequest, inputs: Sequence[Input]
) -> TokenizeOptions:
    if not isinstance(inputs[0], list):
        prompt = choose_prompt(
            model.prompts, model.default_prompt, prompt_name=asked.prompt_name, input_type=asked.input_type
        )
        return TokenizeOptions(prompt, _cut_to(asked, model))
    for name in ("prompt_name", "input_type", "truncate_prompt_tokens"):
        if getattr(asked, name) is not None:
            raise BadRequest(f"{name} goes with texts; the model's own token ids stay as sent.", param=name)
    return TokenizeOptions(own_ids=True)


def _rerank_options(model: Reranker, asked: PairRequest) -> TokenizeOptions:
    if asked.instruction is not None and not model.takes_instruction:
        raise BadRequest(f"{asked.model} is a cross-encoder and takes no instruction.", param="instruction")
    return TokenizeOptions(
        asked.instruction or model.default_prompt or None,
        _cut_to(asked, model),
        asked.max_tokens_per_query,
        asked.max_tokens_per_doc,
    )


def _classification_options(
    model: Classifier, asked: ClassificationRequest, inputs: Sequence[Input]
) -> TokenizeOptions:
    if not isinstance(inputs[0], list):
        special_tokens = asked.add_special_tokens
        if special_tokens is None:
            special_tokens = asked.messages is None  # a chat template has its own
        return TokenizeOptions(max_length=_cut_to(asked, model), special_tokens=special_tokens)
    if asked.truncate_prompt_tokens is not None:
        raise BadRequest(
            "truncate_prompt_tokens goes with texts; the model's own token ids stay as sent.",
            param="truncate_prompt_tokens",
        )
    return TokenizeOptions(own_ids=True)


def _cut_to(asked: PoolingRequest, model: Model) -> int | None:
    """What `truncate_prompt_tokens` means: -1 is all that the model takes, as in vLLM."""
    wanted = asked.truncate_prompt_tokens
    if wanted is None:
        return None
    if wanted == -1:
        return model.max_length
    least = model.template_length + 1
    if not least <= wanted <= model.max_length:
        raise BadRequest(
            f"truncate_prompt_tokens must be -1 or {least} to {model.max_length} for this model.",
            param="truncate_prompt_tokens",
        )
    return wanted
