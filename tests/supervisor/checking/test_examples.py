"""One request for each kind, and what its answers say in words."""

from __future__ import annotations

import base64
import io
import wave
import zlib

import pytest

from local_llm.catalog.card import Kind
from local_llm.examples import example, red_square, second_of_tone
from local_llm.gateway.endpoints import ENDPOINTS

ANSWERS = {
    Kind.CHAT: ({"choices": [{"message": {"content": "Paris.\n"}}]}, '"Paris.\\n"'),
    Kind.VISION_LANGUAGE: ({"choices": [{"message": {"content": "Red."}}]}, '"Red."'),
    Kind.BASE: ({"choices": [{"text": " Paris"}]}, '" Paris"'),
    Kind.EMBEDDING: ({"data": [{"embedding": [0.6, 0.8]}]}, "2 dimensions, of length 1.00"),
    Kind.RERANKER: (
        {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]},
        '"Cats sleep." 0.900 > "Paris is in France." 0.100',
    ),
    Kind.CLASSIFIER: (
        {"data": [{"label": "joy", "probs": [0.1, 0.9], "num_classes": 2}]},
        '"joy", 0.900 of 2 classes',
    ),
    Kind.TRANSCRIPTION: ({"text": "beep"}, '"beep"'),
}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_is_asked_at_an_endpoint_that_it_answers(kind: Kind) -> None:
    """And its answer is told in a line."""
    asked = example(kind)
    assert kind in ENDPOINTS[asked.path].kinds
    answer, words = ANSWERS[kind]
    assert asked.in_words(answer) == words


def test_a_model_that_only_thought_has_answered() -> None:
    """Few tokens are over before a thought is."""
    answer = {"choices": [{"message": {"content": None, "reasoning": "The user asks"}}]}
    assert example(Kind.CHAT).in_words(answer) == '"The user asks"'


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("answer", [{}, [], {"data": []}, {"choices": []}, {"choices": [{}]}])
def test_an_answer_that_is_none_is_noticed(kind: Kind, answer: object) -> None:
    """By the errors that `Example` names, and no other."""
    with pytest.raises((KeyError, IndexError, TypeError)):
        example(kind).in_words(answer)


def test_the_picture_is_a_png_and_the_sound_a_wav() -> None:
    """Nothing of them comes from a library."""
    content = base64.b64decode(red_square(2).partition(",")[2])
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = content.partition(b"IDAT")[2]
    assert zlib.decompressobj().decompress(pixels) == (b"\0" + b"\xff\0\0" * 2) * 2
    with wave.open(io.BytesIO(second_of_tone())) as sound:
        assert (sound.getnframes(), sound.getframerate(), sound.getnchannels()) == (16_000, 16_000, 1)
