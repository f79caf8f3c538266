"""Models with random weights, written on the spot: small enough to make and load in a second or two.

They say nothing sensible and are real in every other way: configuration, weights, tokenizer and, for
chat, a template. The chat model is a Qwen3, so that a switch from the demonstration model (a Llama) is
a switch of architecture too.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

VOCABULARY_SIZE = 512
CONTEXT_LENGTH = 2048
EMBEDDING_SIZE = 64
SEED = 20_260_101

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTENT_MACRO_CALL = "content(message)"
CONTENT_MACRO = (
    "{% macro content(message) %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for each in message['content'] %}"
    "{% if each['type'] == 'image' %}<image>{% else %}{{ each['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
)
SENTENCES = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "A small model answers a short question with random words.",
    "Cats sleep in the sun while the rain falls on the other side of the hill.",
    "What is the time, where is the train, and who has the tickets?",
)


def write_tiny_chat_model(path: Path) -> Path:
    """Writes a Qwen3ForCausalLM of 0.1 million weights with a ChatML template; returns `path`.

    vLLM runs it, on the CPU too. Its answers are printable ASCII, another piece of text with each token,
    and run on until `max_tokens`: whatever else the random weights would choose, it never says.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _byte_level_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    torch.manual_seed(SEED)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=False,  # tied, it would repeat the last token for ever
            initializer_range=0.5,  # the usual 0.02 leaves all tokens about equally likely
            bos_token_id=None,
            eos_token_id=end_of_turn,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(torch.bfloat16)
    with torch.no_grad():
        for token in range(VOCABULARY_SIZE):
            text = tokenizer.decode([token], skip_special_tokens=True)
            if not (text.isascii() and text.isprintable() and text):
                model.lm_head.weight[token] = 0
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def write_tiny_embedding_model(path: Path) -> Path:
    """Writes a BERT with mean pooling and normalisation, 64 dimensions, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    with TemporaryDirectory() as encoder:
        _write_bert(encoder, BertModel)
        transformer = Transformer(encoder, max_seq_length=CONTEXT_LENGTH)
    pooling = Pooling(EMBEDDING_SIZE, pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    model.save_pretrained(str(path), create_model_card=False)
    return path


def write_tiny_reranker(path: Path) -> Path:
    """Writes a BERT cross-encoder with one label, as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder
    from transformers import BertForSequenceClassification

    with TemporaryDirectory() as encoder:
        _write_bert(encoder, BertForSequenceClassification, num_labels=1)
        model = CrossEncoder(encoder, num_labels=1, max_length=CONTEXT_LENGTH, device="cpu")
    model.save_pretrained(str(path), create_model_card=False)
    return path


def _write_bert(path: str, model_class: Any, **settings: Any) -> None:
    """A bare BERT of 0.2 million weights and its tokenizer, as transformers saves them."""
    import torch
    from transformers import BertConfig

    tokenizer = _byte_level_tokenizer()
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=EMBEDDING_SIZE,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    model_class(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


def _byte_level_tokenizer() -> Any:
    """A byte-level BPE of 512 tokens, trained on a few sentences: it encodes any text, without unknowns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def write_tiny_transcription_model(path: Path) -> Path:
    """Writes a Whisper of 0.3 million weights that vLLM runs; returns `path`. It hears anything at all."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(
        vocab={each: place for place, each in enumerate(alphabet)}, merges=[], unk_token=END_OF_TEXT
    )
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    marks = ["endoftext", "startoftranscript", *LANGUAGES, *tasks]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{each}|>" for each in marks]})
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    torch.manual_seed(SEED)
    config = WhisperConfig(
        vocab_size=len(tokenizer) + 1501,  # the time stamps
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.5,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    WhisperForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(path)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(path)
    return path


def write_tiny_vision_language_model(path: Path) -> Path:
    """Writes an Idefics3 of 0.3 million weights that vLLM runs; returns `path`.

    Of vLLM's models that take images it is one of the few that need no torchvision.
    """
    import torch
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        LlamaConfig,
    )
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = _byte_level_tokenizer()
    marks = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    template = CHAT_TEMPLATE.replace("message['content'] + ", f"{CONTENT_MACRO_CALL} + ")
    tokenizer.chat_template = CONTENT_MACRO + template
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    heads = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64}
    vision = Idefics3VisionConfig(**heads, image_size=56, patch_size=14)
    text = LlamaConfig(
        **heads,
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
    )
    torch.manual_seed(SEED)
    config = Idefics3Config(
        vision_config=vision,
        text_config=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    Idefics3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(path)
    edge = {"longest_edge": 56}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template)
    processor.save_pretrained(path)
    return path
