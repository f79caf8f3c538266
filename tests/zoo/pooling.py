"""Embedding models, rerankers and classifiers, in the layouts that sentence-transformers has had."""

from __future__ import annotations

from typing import Any

from tests.zoo import tokenizer
from tests.zoo.specimen import Content, Expected, Specimen, config, template
from tests.zoo.weights import Tensors, files_of

OLD = "sentence_transformers.models"
NEW = "sentence_transformers.sentence_transformer.modules"
BASE = "sentence_transformers.base.modules"
_EMBEDDING = Expected("embedding", "transformers")
_RERANKER = Expected("reranker", "transformers")
_CLASSIFIER = Expected("classifier", "transformers")


def _bert(architecture: str = "BertModel", model_type: str = "bert", **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
        "vocab_size": 30_522,
        "torch_dtype": "float32",
        **more,
    }


_WEIGHTS: Tensors = {"embeddings.word_embeddings.weight": ("F32", (30_522, 384))}


def _modules(*types: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (kind, path) in enumerate(types)
    ]


def _model(model_id: str, expected: Expected, said: dict[str, Any], **files: Content) -> Specimen:
    whole = {"config.json": said, **tokenizer.files(None, longest=512), **files_of(_WEIGHTS), **files}
    return Specimen(model_id, whole, expected)


def _sentence(kind: str, version: str = "6.2.0", **more: Any) -> dict[str, Any]:
    return {"__version__": {"sentence_transformers": version}, "model_type": kind, "prompts": {}, **more}


_OLD_POOLING = {
    "word_embedding_dimension": 384,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
_QWEN3 = config("Qwen3-0.6B")

EMBEDDING = (
    _model(
        "sentence-transformers/all-MiniLM-L6-v2",
        _EMBEDDING,
        _bert(),
        **{
            "modules.json": _modules(
                (f"{OLD}.Transformer", ""),
                (f"{OLD}.Pooling", "1_Pooling"),
                (f"{OLD}.Normalize", "2_Normalize"),
            ),
            "1_Pooling/config.json": _OLD_POOLING,
            "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
            "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.0.0"}},
        },
    ),
    _model(
        "zoo/saved-by-sentence-transformers-5.4",
        _EMBEDDING,
        _bert(),
        **{
            "modules.json": _modules(
                (f"{BASE}.transformer.Transformer", ""),
                (f"{NEW}.pooling.Pooling", "1_Pooling"),
                (f"{BASE}.normalize.Normalize", "2_Normalize"),
            ),
            "1_Pooling/config.json": {
                "embedding_dimension": 384,
                "pooling_mode": "mean",
                "include_prompt": True,
            },
            "sentence_bert_config.json": {"transformer_task": "feature-extraction", "max_seq_length": 256},
            "config_sentence_transformers.json": _sentence("SentenceTransformer"),
        },
    ),
    _model(  # a language model that the pooling module makes an embedding model, template and all
        "Qwen/Qwen3-Embedding-0.6B",
        _EMBEDDING,
        _QWEN3,
        **tokenizer.files(template("qwen3-hybrid")),
        **{
            "modules.json": _modules(
                (f"{OLD}.Transformer", ""),
                (f"{OLD}.Pooling", "1_Pooling"),
                (f"{OLD}.Normalize", "2_Normalize"),
            ),
            "1_Pooling/config.json": {
                **_OLD_POOLING,
                "pooling_mode_mean_tokens": False,
                "pooling_mode_lasttoken": True,
            },
            "config_sentence_transformers.json": {"prompts": {"query": "Instruct: ...\nQuery:"}},
        },
    ),
    _model(
        "google/embeddinggemma-300m",
        _EMBEDDING,
        {**config("Gemma-3-1B"), "architectures": ["Gemma3TextModel"]},
        **{
            "modules.json": _modules(
                (f"{OLD}.Transformer", ""),
                (f"{OLD}.Pooling", "1_Pooling"),
                (f"{OLD}.Dense", "2_Dense"),
                (f"{OLD}.Dense", "3_Dense"),
                (f"{OLD}.Normalize", "4_Normalize"),
            ),
            "1_Pooling/config.json": _OLD_POOLING,
            "2_Dense/config.json": {"in_features": 768, "out_features": 3072},
            "3_Dense/config.json": {"in_features": 3072, "out_features": 768},
        },
    ),
    _model("BAAI/bge-m3-bare", _EMBEDDING, _bert("XLMRobertaModel", "xlm-roberta")),
    _model("zoo/masked-language-model", _EMBEDDING, _bert("BertForMaskedLM")),
)

_LOGIT = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
_ONE_LABEL: dict[str, Any] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
_NLI: dict[str, Any] = {"id2label": {"0": "contradiction", "1": "entailment", "2": "neutral"}}

RANKING = (
    _model(
        "cross-encoder/ms-marco-MiniLM-L6-v2",
        _RERANKER,
        _bert(
            "BertForSequenceClassification",
            **_ONE_LABEL,
            sbert_ce_default_activation_function="torch.nn.modules.linear.Identity",
        ),
    ),
    _model(
        "zoo/cross-encoder-saved-by-5.4",
        _RERANKER,
        _bert("BertForSequenceClassification", **_ONE_LABEL),
        **{
            "modules.json": _modules((f"{BASE}.transformer.Transformer", "")),
            "sentence_bert_config.json": {"transformer_task": "sequence-classification"},
            "config_sentence_transformers.json": _sentence(
                "CrossEncoder", activation_fn="torch.nn.modules.activation.Sigmoid"
            ),
        },
    ),
    _model(
        "BAAI/bge-reranker-v2-m3",
        _RERANKER,
        _bert("XLMRobertaForSequenceClassification", "xlm-roberta", **_ONE_LABEL),
    ),
    _model(
        "Qwen/Qwen3-Reranker-0.6B",
        _RERANKER,
        _QWEN3,
        **tokenizer.files(template("qwen3-hybrid")),
        **{
            "modules.json": _modules((f"{BASE}.transformer.Transformer", ""), (_LOGIT, "1_LogitScore")),
            "1_LogitScore/config.json": {"true_token_id": 9693, "false_token_id": 2152},
            "config_sentence_transformers.json": _sentence("CrossEncoder"),
        },
    ),
    _model("zoo/Qwen3-Reranker-0.6B-copy", _RERANKER, _QWEN3, **tokenizer.files(template("qwen3-hybrid"))),
    _model(
        "cross-encoder/nli-deberta-v3-base",
        _CLASSIFIER,
        _bert("DebertaV2ForSequenceClassification", "deberta-v2", **_NLI),
    ),
    _model(
        "zoo/nli-saved-by-5.4",
        _CLASSIFIER,
        _bert("BertForSequenceClassification", **_NLI),
        **{
            "modules.json": _modules((f"{BASE}.transformer.Transformer", "")),
            "config_sentence_transformers.json": _sentence("CrossEncoder"),
        },
    ),
    _model("zoo/sentiment-of-two", _CLASSIFIER, _bert("DistilBertForSequenceClassification", "distilbert")),
    _model(
        "zoo/topics-of-four", _CLASSIFIER, _bert("RobertaForSequenceClassification", "roberta", num_labels=4)
    ),
)

_NO_SPLADE = Expected(None, reason="sparse embeddings")
NOT_SERVED = (
    _model(
        "naver/splade-v3",
        _NO_SPLADE,
        _bert("BertForMaskedLM"),
        **{
            "modules.json": _modules(
                ("sentence_transformers.sparse_encoder.models.MLMTransformer", ""),
                ("sentence_transformers.sparse_encoder.models.SpladePooling", "1_SpladePooling"),
            ),
            "1_SpladePooling/config.json": {"pooling_strategy": "max"},
        },
    ),
    _model(
        "zoo/splade-saved-by-5.4",
        _NO_SPLADE,
        _bert("BertForMaskedLM"),
        **{
            "modules.json": _modules(
                ("sentence_transformers.base.modules.transformer.Transformer", ""),
                (
                    "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
                    "1_SpladePooling",
                ),
            ),
            "config_sentence_transformers.json": _sentence("SparseEncoder"),
        },
    ),
    _model(
        "zoo/multi-vector",
        Expected(None, reason="colbert"),
        _bert(),
        **{"config_sentence_transformers.json": _sentence("MultiVectorEncoder")},
    ),
    _model(
        "zoo/named-entities",
        Expected(None, reason="token classification"),
        _bert("BertForTokenClassification"),
    ),
    _model(
        "zoo/question-answering",
        Expected(None, reason="question answering"),
        _bert("BertForQuestionAnswering"),
    ),
)

POOLING = (*EMBEDDING, *RANKING, *NOT_SERVED)
