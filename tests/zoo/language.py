"""Language models: the rows of `language.txt`, and models in Mistral's own format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.zoo import shapes, tokenizer
from tests.zoo.specimen import HERE, Content, Expected, Specimen, config, template
from tests.zoo.weights import Tensors, file_of, files_of

_ABSENT = "-"
_TEMPLATE_FILE = " (file)"
_TENSORS = {"gpt_oss": shapes.gpt_oss, "deepseek_v2": shapes.deepseek_v2}
# Published quantized, with no other variant.
_QUANTIZED = {
    "openai/gpt-oss-20b": "MXFP4",
    "deepseek-ai/DeepSeek-V3-0324": "FP8",
    "moonshotai/Kimi-K2-Instruct": "FP8",
    "XiaomiMiMo/MiMo-V2.5": "FP8",
}
# transformers saves the output layer of these although it is tied to the embedding.
_STORES_TIED_HEAD = {"Qwen3-0.6B"}


def _rows() -> Iterator[Mapping[str, str]]:
    """The lines of the table, with the family they stand under."""
    columns: list[str] = []
    family = ""
    for line in (HERE / "language.txt").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("="):
            family = line.removeprefix("=").strip()
        elif not line or line.startswith("#"):
            continue
        elif not columns:
            columns = cells
        else:
            yield {"family": family, **dict(zip(columns, cells, strict=True))}


def _specimen(row: Mapping[str, str]) -> Specimen:
    said = config(row["config.json"])
    name = row["template"].removesuffix(_TEMPLATE_FILE)
    apart = row["template"].endswith(_TEMPLATE_FILE)
    weights = _number(row["weights"])
    files: dict[str, Content] = {
        "config.json": said,
        "generation_config.json": {"eos_token_id": 2, "temperature": 0.6, "top_p": 0.95},
        **tokenizer.files(None if name == _ABSENT else template(name), apart=apart),
        **files_of(shapes.token(said) if weights is None else _tensors(row["config.json"], said)),
    }
    expected = Expected(
        kind=row["kind"],
        tool_call_parser=_parsers(row["tool calls"]),
        reasoning_parser=_parsers(row["reasoning"]),
        weights_bytes=weights,
        kv_bytes_per_token=_number(row["cache"]),
        quantization=_QUANTIZED.get(row["model"]),
    )
    return Specimen(row["model"], files, expected, row["family"], row["starts"])


def _tensors(name: str, said: Mapping[str, Any]) -> Tensors:
    special = _TENSORS.get(said["model_type"])
    if special is not None:
        return special(said)
    return shapes.decoder(said, stored_head=name in _STORES_TIED_HEAD)


def _number(cell: str) -> int | None:
    return None if cell == _ABSENT else int(cell)


def _parsers(cell: str) -> tuple[str | None, ...]:
    return (None,) if cell == _ABSENT else tuple(cell.split("/"))


ROWS = tuple(map(_specimen, _rows()))


def _native(name: str) -> dict[str, Content]:
    """The files that Mistral AI puts beside those of transformers."""
    said = config(name)
    text = said.get("text_config", said)
    return {
        "params.json": {
            "dim": text["hidden_size"],
            "n_layers": text["num_hidden_layers"],
            "head_dim": text.get("head_dim") or 128,
            "hidden_dim": text["intermediate_size"],
            "n_heads": text["num_attention_heads"],
            "n_kv_heads": text["num_key_value_heads"],
            "norm_eps": 1e-05,
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": 262_144,
            "rope_theta": 1_000_000.0,
        },
        "tekken.json": {"config": {"pattern": ".", "version": "v11"}, "vocab": [], "special_tokens": []},
        "consolidated.safetensors": file_of(shapes.token(said)),
    }


def _both_formats() -> Specimen:
    """As Mistral AI publishes: its own files and those of transformers."""
    plain = next(each for each in ROWS if each.id == "mistralai/Mistral-7B-Instruct-v0.3")
    files = {**plain.files, **_native("Mistral-7B-v0.3")}
    return Specimen(f"{plain.id}-both", files, plain.expected, plain.family)


_NATIVE = Specimen(
    "mistralai/Ministral-3-8B-Instruct-2512",
    _native("Ministral-3-8B"),
    Expected(tool_call_parser=("mistral",)),
    "Mistral",
)

LANGUAGE = (*ROWS, _NATIVE, _both_formats())
