"""Tiny models with random weights, written once a session, and the pooling server inside this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

MAX_TOKENS = 48
WORDS = (  # noqa: SIM905 - sixty lines otherwise
    "a all and are book boy by can cat city day dog eats every fish for france girl good has he house in is "
    "it king like man milk moon new night of old on paris queen rain red river sea she sleeps small snow sun "
    "the they to town tree under water we white wind with woman"
).split()

Serving: TypeAlias = "Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]"


def sentence(seed: int, words: int) -> str:
    """A text of so many words of the tiny models' vocabulary; another for each seed."""
    return " ".join(WORDS[(seed * 7 + place * place + 3 * place) % len(WORDS)] for place in range(words))


@pytest.fixture(scope="session")
def embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT, mean pooling without the prompt, L2; 32 dimensions; prompts for queries and clustering."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-embedding"
    transformer = Transformer(str(_write_bert(folder / "encoder", BertModel)), max_seq_length=MAX_TOKENS)
    pooling = Pooling(32, pooling_mode="mean", include_prompt=False)
    model = SentenceTransformer(
        modules=[transformer, pooling, Normalize()],
        device="cpu",
        prompts={"query": "the queen and ", "document": "", "clustering": "snow "},
    )
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT for sequence classification with one label, as transformers saves it."""
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "tiny-cross-encoder"
    return _write_bert(folder, BertForSequenceClassification, num_labels=1)


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT for sequence classification with three labels, as transformers saves it."""
    return write_classifier(tmp_path_factory.mktemp("models") / "tiny-classifier")


def write_classifier(folder: Path, **settings: Any) -> Path:
    """A BERT that tells sad from glad and mad; `settings` go into its config.json."""
    from transformers import BertForSequenceClassification

    names = ["sad", "glad", "mad"]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    return _write_bert(folder, BertForSequenceClassification, **labels, **settings)


@pytest.fixture(scope="session")
def generative_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old copy of Qwen3-Reranker: a bare Qwen3ForCausalLM with a chat's template, told by its name."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3-reranker"
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    _bytes_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def load_once() -> Callable[[Path], Any]:
    """Loads a folder as the program does, on the CPU with one thread; each folder once a session."""
    from local_llm_worker.pooling.folder import Folder
    from local_llm_worker.pooling.loading import LoadOptions, load

    loaded: dict[Path, Any] = {}

    def load_folder(path: Path) -> Any:
        if path not in loaded:
            loaded[path] = load(path, LoadOptions(Folder(path).kind(), device="cpu"))
        return loaded[path]

    return load_folder


@pytest.fixture
def serving(load_once: Callable[[Path], Any]) -> Serving:
    """`async with serving(folder) as client`: the application for that model, asked without a socket."""
    from local_llm_worker.pooling.endpoints import Endpoints
    from local_llm_worker.pooling.engine import Engine
    from local_llm_worker.pooling.server import App
    from local_llm_worker.pooling.token_ids import TokenIds

    @asynccontextmanager
    async def serve(folder: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        model, limits, _ = load_once(folder)
        engine = Engine(model, limits, on_device_lost=pytest.fail)
        settings = {
            "served_names": ("tiny", "org/tiny"),
            "token_ids": TokenIds.OPENAI,
            "max_body_bytes": 1 << 20,
            **options,
        }
        app = App(Endpoints(model, engine, **settings))
        transport = httpx.ASGITransport(app)
        async with engine, httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            yield client

    return serve


def _write_bert(folder: Path, model_class: Any, **settings: Any) -> Path:
    import torch
    from transformers import BertConfig, BertTokenizer

    folder.mkdir(parents=True)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [form for letter in "abcdefghijklmnopqrstuvwxyz" for form in (letter, f"##{letter}")]
    vocabulary = dict.fromkeys([*marks, *letters, *WORDS])
    tokenizer = BertTokenizer(vocab={each: place for place, each in enumerate(vocabulary)})
    tokenizer.model_max_length = MAX_TOKENS
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,
        **settings,
    )
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _bytes_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet: Sequence[str] = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {each: place for place, each in enumerate([*marks, *alphabet, "ye", "yes", "no"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    wrapped.chat_template = "{% for each in messages %}{{ each.role + ': ' + each.content }}{% endfor %}"
    return wrapped
