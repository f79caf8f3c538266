"""Kind and engine from a folder's signs, as a table; the expectations come from the rules, not the code."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog import architectures
from local_llm.catalog.card import Engine, Kind
from local_llm.catalog.files import Unservable
from local_llm.catalog.kinds import Decision, Signs, decide

TEMPLATE = "tokenizer_config.json has a chat template"
CHAT, BASE, EMBEDDING = Kind.CHAT, Kind.BASE, Kind.EMBEDDING
RERANKER, CLASSIFIER = Kind.RERANKER, Kind.CLASSIFIER
VISION_LANGUAGE, TRANSCRIPTION = Kind.VISION_LANGUAGE, Kind.TRANSCRIPTION
IMAGES = "config.json has a part for images"


def _decide(default_engine: Engine = Engine.VLLM, **signs: Any) -> Decision:
    return decide(Signs(**{"name": "model", **signs}), default_engine=default_engine)


@pytest.mark.parametrize(
    ("kind", "evidence", "signs"),
    [
        # 1: sentence-transformers says what it is
        (RERANKER, "says CrossEncoder", {"sentence_type": "CrossEncoder", "labels": 1}),
        (RERANKER, "says CrossEncoder", {"sentence_type": "CrossEncoder"}),
        (
            RERANKER,
            "says CrossEncoder",
            {
                "sentence_type": "CrossEncoder",
                "architecture": "Qwen3ForCausalLM",
                "modules": ("LogitScore",),
                "labels": 2,
            },
        ),
        (CLASSIFIER, "3 labels", {"sentence_type": "CrossEncoder", "labels": 3}),
        (
            CLASSIFIER,
            "2 labels",
            {"sentence_type": "CrossEncoder", "architecture": "BertForSequenceClassification"},
        ),
        # 2, 3: modules beat the architecture
        (
            RERANKER,
            "modules.json has LogitScore",
            {"architecture": "Qwen3ForCausalLM", "template": TEMPLATE, "modules": ("LogitScore",)},
        ),
        (
            EMBEDDING,
            "modules.json has Pooling",
            {"architecture": "Qwen3ForCausalLM", "template": TEMPLATE, "modules": ("Transformer", "Pooling")},
        ),
        (EMBEDDING, "modules.json has Pooling", {"name": "e5-7b-Instruct", "modules": ("Pooling",)}),
        (
            EMBEDDING,
            "modules.json has Pooling",
            {"sentence_type": "SentenceTransformer", "modules": ("Pooling",)},
        ),
        # 4, 5: the classification head
        (RERANKER, "1 label", {"architecture": "XLMRobertaForSequenceClassification", "labels": 1}),
        (CLASSIFIER, "28 labels", {"architecture": "RobertaForSequenceClassification", "labels": 28}),
        (CLASSIFIER, "means 2", {"architecture": "BertForSequenceClassification"}),
        (
            RERANKER,
            "1 label",
            {
                "name": "Qwen3-Reranker-0.6B-seq-cls",
                "architecture": "Qwen3ForSequenceClassification",
                "labels": 1,
                "template": TEMPLATE,
            },
        ),
        (
            RERANKER,
            "1 label",
            {"name": "Norm-2B", "architecture": "GemmaForSequenceClassification", "labels": 1},
        ),
        (
            RERANKER,
            "1 label",
            {"name": "my-RM-base", "architecture": "DebertaV2ForSequenceClassification", "labels": 1},
        ),
        # 6: encoders
        (EMBEDDING, "architectures[0] is BertModel", {"architecture": "BertModel"}),
        (EMBEDDING, "is GteForTextEncoding", {"architecture": "GteForTextEncoding"}),
        (EMBEDDING, "is BgeM3EmbeddingModel", {"architecture": "BgeM3EmbeddingModel"}),
        (EMBEDDING, "is BertForMaskedLM", {"architecture": "BertForMaskedLM"}),
        (EMBEDDING, "is BertForPreTraining", {"architecture": "BertForPreTraining"}),
        (EMBEDDING, "is ElectraForPreTraining", {"architecture": "ElectraForPreTraining"}),
        (EMBEDDING, "is XLMRobertaModel", {"architecture": "XLMRobertaModel", "tokenizer": False}),
        (EMBEDDING, "is NewModel", {"architecture": "NewModel", "modules": ("Mine",), "tokenizer": False}),
        (EMBEDDING, "is CLIPTextModel", {"architecture": "CLIPTextModel"}),
        (EMBEDDING, "model_type is bert", {"name": "Bio_ClinicalBERT", "model_type": "bert"}),
        (EMBEDDING, "model_type is deberta-v2", {"name": "bert-chat", "model_type": "deberta-v2"}),
        (RERANKER, 'name contains "reranker"', {"name": "my-reranker", "model_type": "xlm-roberta"}),
        # 7: a language model that shows only by its name that it does not talk
        (
            RERANKER,
            'name contains "Reranker"',
            {"name": "Qwen3-Reranker-4B", "architecture": "Qwen3ForCausalLM", "template": TEMPLATE},
        ),
        (
            RERANKER,
            'name contains "rerank"',
            {"name": "mxbai-rerank-v2", "architecture": "Qwen2ForCausalLM", "template": TEMPLATE},
        ),
        (
            EMBEDDING,
            'name contains "Embedding"',
            {"name": "Qwen3-Embedding-8B", "architecture": "Qwen3ForCausalLM", "template": TEMPLATE},
        ),
        # 8, 9: language models with and without a template
        (CHAT, TEMPLATE, {"architecture": "LlamaForCausalLM", "template": TEMPLATE}),
        (CHAT, TEMPLATE, {"architecture": "ChatGLMModel", "template": TEMPLATE}),
        (CHAT, TEMPLATE, {"architecture": "Qwen2AudioForConditionalGeneration", "template": TEMPLATE}),
        (CHAT, TEMPLATE, {"architecture": "VoxtralForConditionalGeneration", "template": TEMPLATE}),
        (CHAT, "Mistral's own format", {"mistral_format": True, "template": "params.json"}),
        (BASE, "no chat template was found", {"architecture": "GPT2LMHeadModel"}),
        (BASE, "no chat template was found", {"architecture": "LlamaForCausalLM"}),
        (
            CHAT,
            'name contains "Instruct"',
            {"name": "Falcon-7B-Instruct", "architecture": "FalconForCausalLM"},
        ),
        # those that take images: by vLLM's list, else by their configuration
        (
            VISION_LANGUAGE,
            "it takes images",
            {"architecture": "Gemma3ForConditionalGeneration", "template": TEMPLATE},
        ),
        (VISION_LANGUAGE, TEMPLATE, {"architecture": "InternVLChatModel", "template": TEMPLATE}),
        (VISION_LANGUAGE, TEMPLATE, {"architecture": "Qwen2_5OmniModel", "template": TEMPLATE}),
        (VISION_LANGUAGE, TEMPLATE, {"architecture": "Phi3VForCausalLM", "template": TEMPLATE}),
        (
            VISION_LANGUAGE,
            "it takes images",
            {
                "architecture": "PixtralForConditionalGeneration",
                "mistral_format": True,
                "template": "params.json",
            },
        ),
        (
            VISION_LANGUAGE,
            "vLLM has a chat template for it",
            {"architecture": "DeepseekOCRForCausalLM"},
        ),
        (
            VISION_LANGUAGE,
            IMAGES,
            {"architecture": "NewVLForConditionalGeneration", "template": TEMPLATE, "images": IMAGES},
        ),
        (
            VISION_LANGUAGE,
            'name contains "Instruct"',
            {"name": "Llava-Instruct", "architecture": "LlavaForConditionalGeneration"},
        ),
        (CHAT, TEMPLATE, {"architecture": "Gemma3ForCausalLM", "template": TEMPLATE, "images": IMAGES}),
        (BASE, "no chat template was found", {"architecture": "LlavaForConditionalGeneration"}),
        (
            EMBEDDING,
            'name contains "Embedding"',
            {
                "name": "Qwen3-VL-Embedding-2B",
                "architecture": "Qwen3VLForConditionalGeneration",
                "template": TEMPLATE,
            },
        ),
        # transcription, though it is an encoder-decoder or has a template
        (
            TRANSCRIPTION,
            "it is made for transcription",
            {"architecture": "WhisperForConditionalGeneration", "encoder_decoder": True},
        ),
        (
            TRANSCRIPTION,
            "architectures[0] is Qwen3ASRForConditionalGeneration",
            {"architecture": "Qwen3ASRForConditionalGeneration", "template": TEMPLATE},
        ),
        (
            TRANSCRIPTION,
            "Mistral's own format",
            {
                "architecture": "VoxtralRealtimeGeneration",
                "mistral_format": True,
                "template": "params.json",
            },
        ),
        (
            CLASSIFIER,
            "3 labels",
            {"architecture": "BartForSequenceClassification", "encoder_decoder": True, "labels": 3},
        ),
        # the name alone
        (CHAT, 'name contains "chatglm"', {"name": "chatglm3-6b"}),
        (CHAT, 'name contains "chat"', {"name": "openchat-3.5"}),
        (CHAT, 'name contains "Chat"', {"name": "DeepSeek-Chat"}),
        (CHAT, 'name contains "INSTRUCT"', {"name": "MODEL-INSTRUCT"}),
        (EMBEDDING, 'name contains "Embeddings"', {"name": "My-Embeddings"}),
        (EMBEDDING, 'name contains "embed"', {"name": "nomic-embed-text"}),
        (RERANKER, 'name contains "Reranker"', {"name": "m0-RerankerV2", "architecture": "JinaForRanking"}),
        # nothing at all
        (BASE, "the default engine is vllm", {}),
        (CHAT, "the default engine is vllm", {"template": TEMPLATE}),
        (BASE, "the default engine is vllm", {"name": "instructor-large"}),
    ],
)
def test_kind(kind: Kind, evidence: str, signs: dict[str, Any]) -> None:
    """Each sign decides in its turn, and says so."""
    decision = _decide(**signs)
    assert decision.kind is kind
    assert evidence in "\n".join(decision.evidence)


@pytest.mark.parametrize(
    ("kind_signs", "engine"),
    [
        ({"architecture": "LlamaForCausalLM", "template": TEMPLATE}, Engine.VLLM),
        ({"architecture": "LlamaForCausalLM"}, Engine.VLLM),
        ({"modules": ("Pooling",)}, Engine.TRANSFORMERS),
        ({"architecture": "BertForSequenceClassification", "labels": 1}, Engine.TRANSFORMERS),
        ({"architecture": "BertForSequenceClassification", "labels": 5}, Engine.TRANSFORMERS),
        ({"architecture": "WhisperForConditionalGeneration"}, Engine.VLLM),
        ({"architecture": "Qwen2VLForConditionalGeneration", "template": TEMPLATE}, Engine.VLLM),
    ],
)
def test_engine_follows_kind(kind_signs: dict[str, Any], engine: Engine) -> None:
    """What talks runs on vLLM, what pools on transformers."""
    assert _decide(**kind_signs).engine is engine


def test_default_engine() -> None:
    """A folder that says nothing runs on the default engine, as a model of the kind that engine is for."""
    decision = _decide(default_engine=Engine.TRANSFORMERS)
    assert (decision.kind, decision.engine) == (Kind.EMBEDDING, Engine.TRANSFORMERS)


def test_settings_overrule_the_engine_and_say_so() -> None:
    """The settings' engine wins; the kind stays what the folder shows."""
    decision = decide(
        Signs(name="m", modules=("Pooling",)), default_engine=Engine.VLLM, chosen_engine=Engine.VLLM
    )
    assert (decision.kind, decision.engine) == (Kind.EMBEDDING, Engine.VLLM)
    assert decision.evidence[-1] == "the settings choose vllm as its engine"


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        ({"architecture": "Wav2Vec2ForCTC"}, "speech recognition"),
        ({"architecture": "Speech2TextForConditionalGeneration"}, "speech recognition"),
        ({"architecture": "SpeechT5ForTextToSpeech"}, "speech synthesis"),
        ({"architecture": "VitsModel"}, "speech synthesis"),
        ({"architecture": "MusicgenForConditionalGeneration"}, "speech synthesis"),
        ({"architecture": "HubertModel"}, "sounds"),
        ({"architecture": "ViTModel"}, "vision"),
        ({"architecture": "GroundingDinoForObjectDetection"}, "vision"),
        ({"architecture": "OpenVLAForActionPrediction"}, "movements"),
        ({"architecture": "BertForQuestionAnswering"}, "question answering"),
        ({"architecture": "HF_ColBERT"}, "multi-vector"),
        ({"architecture": "MarianMTModel"}, "encoder-decoder"),
        ({"architecture": "T5Model"}, "encoder-decoder"),
        ({"architecture": "Florence2ForConditionalGeneration"}, "encoder-decoder"),
        ({"architecture": "BartForConditionalGeneration"}, "encoder-decoder"),
        ({"architecture": "NewForConditionalGeneration", "encoder_decoder": True}, "encoder-decoder"),
        ({"architecture": "T5ForConditionalGeneration", "encoder_decoder": True}, "encoder-decoder"),
        ({"architecture": "ViTForImageClassification"}, "vision"),
        *(
            ({"architecture": name}, reason)
            for reason, names in {
                "vision": "HieraModel HieraForPreTraining VJEPA2Model BlipModel BlipForConditionalGeneration "
                "CLIPModel ChineseCLIPModel SiglipModel Siglip2Model VisualBertForPreTraining DINOv3ViTModel",
                "the layout of pages": "LayoutLMModel LayoutLMv3Model LiltModel",
                "forecasts": "TimesFmModelForPrediction TimesFmModel PatchTSTForPrediction",
                "sounds": "Wav2Vec2ForPreTraining UniSpeechSatForPreTraining",
            }.items()
            for name in names.split()
        ),
        ({"architecture": "NewModel", "tokenizer": False}, "there is no tokenizer, so NewModel is not made"),
        ({"modules": ("CLIPModel",)}, "vision"),
        ({"architecture": "CLIPModel", "modules": ("CLIPModel", "Dense")}, "vision"),
        ({"architecture": "JinaCLIPModel", "modules": ("Transformer", "Normalize")}, "vision"),
        ({"architecture": "Qwen2ForRewardModel"}, "reward modelling"),
        ({"architecture": "LlamaForRewardModelWithGating"}, "reward modelling"),
        *(
            ({"name": name, "architecture": architecture, "labels": 1}, "reward modelling")
            for name, architecture in (
                ("Skywork-Reward-V2-Llama-3.1-8B", "LlamaForSequenceClassification"),
                ("Eurus-RM-7b", "MistralForSequenceClassification"),
                ("Math-PRM", "Qwen2ForSequenceClassification"),
            )
        ),
        ({"architecture": "BertForTokenClassification"}, "token classification"),
        ({"architecture": "LlamaForCausalLMEagle3"}, "speculative decoding"),
        ({"sentence_type": "SparseEncoder", "modules": ("SpladePooling",)}, "sparse embeddings"),
        ({"modules": ("Transformer", "SpladePooling")}, "sparse embeddings"),
        ({"sentence_type": "ColBERT", "modules": ("Transformer", "Dense")}, "multi-vector"),
    ],
)
def test_not_served(signs: dict[str, Any], reason: str) -> None:
    """A kind that is not served is refused in words, rather than started in vain."""
    with pytest.raises(Unservable, match=reason):
        _decide(**signs)


def test_an_encoder_decoder_that_pools_is_served() -> None:
    """sentence-t5 is an encoder-decoder by its configuration and an embedding model by its modules."""
    decision = _decide(architecture="T5EncoderModel", encoder_decoder=True, modules=("Pooling",))
    assert decision.kind is Kind.EMBEDDING


def test_settings_overrule_the_kind_and_the_engine_follows() -> None:
    """A kind in the settings needs no agreement of the folder, not even that it is served at all."""
    signs = Signs(name="m", architecture="BertForTokenClassification")
    decision = decide(signs, default_engine=Engine.VLLM, chosen_kind=Kind.EMBEDDING)
    assert (decision.kind, decision.engine) == (Kind.EMBEDDING, Engine.TRANSFORMERS)
    assert decision.evidence[-1] == "the settings choose embedding as its kind"
    both = decide(signs, default_engine=Engine.VLLM, chosen_kind=Kind.EMBEDDING, chosen_engine=Engine.VLLM)
    assert (both.kind, both.engine) == (Kind.EMBEDDING, Engine.VLLM)


def _registered(source: str, dictionary: str) -> dict[str, tuple[str, str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == dictionary:
            registered: dict[str, tuple[str, str]] = ast.literal_eval(node.value)
            return registered
    raise AssertionError(f"no {dictionary}")


@pytest.mark.engines
def test_the_facts_are_those_of_the_installed_vllm() -> None:
    """Its registry, and which classes support transcription, read from its source."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    models = Path(found.origin).parent / "model_executor" / "models"
    registered = _registered((models / "registry.py").read_text(), "_MULTIMODAL_MODELS")
    chats = architectures.IMAGE_CHAT | architectures.AUDIO_CHAT
    assert chats | architectures.TRANSCRIPTION | architectures.NOT_CHATTING == set(registered)
    assert not chats & architectures.TRANSCRIPTION
    assert not architectures.IMAGE_CHAT & architectures.AUDIO_CHAT
    transcribing = set()
    for name, (module, class_name) in registered.items():
        path = models / f"{module}.py"
        source = path.read_text() if path.exists() else ""
        bases = re.search(rf"^class {class_name}\((.*?)\):", source, re.MULTILINE | re.DOTALL)
        if bases and "SupportsTranscription" in bases[1]:
            transcribing.add(name)
    inherited = {
        "GraniteSpeechPlusForConditionalGeneration",
        "Qwen3ASRRealtimeGeneration",
        "VoxtralRealtimeGeneration",
    }
    assert transcribing == architectures.TRANSCRIPTION - inherited | architectures.TRANSCRIBE_TOO
