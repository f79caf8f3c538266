"""Quantized models, other formats, adapters, and models of other kinds."""

from __future__ import annotations

from typing import Any

from tests.zoo import shapes, tokenizer
from tests.zoo.specimen import Content, Expected, Specimen, config, template
from tests.zoo.weights import Tensors, file_of, files_of

_LLAMA = config("Llama-3.1-8B")


def _quantized(
    title: str, linear: shapes.Linear, size: int, method: dict[str, Any], **files: Content
) -> Specimen:
    """Llama 3.1 8B, its linear layers stored another way.

    The sizes: 6,979,321,856 weights are in linear layers, and the rest takes 2,101,878,784 bytes.
    """
    said = {**_LLAMA, "quantization_config": method}
    return Specimen(
        f"zoo/Llama-3.1-8B-Instruct-{title}",
        {
            "config.json": said,
            **tokenizer.files(template("llama-3.1")),
            **files_of(shapes.decoder(said, linear)),
            **files,
        },
        Expected(
            tool_call_parser=("llama3_json",),
            weights_bytes=size,
            kv_bytes_per_token=131_072,
            quantization=title.partition("-")[0],
        ),
    )


_AWQ = {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm", "zero_point": True}
_GPTQ = {"bits": 4, "group_size": 128, "quant_method": "gptq", "desc_act": True, "sym": True}
_NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}


def _compressed(weights: dict[str, Any], layout: str, activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


_FP8 = _compressed(
    {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False},
    "float-quantized",
    {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True},
)
_W4A16 = _compressed(
    {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True},
    "pack-quantized",
    None,
)
_MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"], "group_size": 16}

QUANTIZED = (
    _quantized("AWQ", shapes.awq, 5_727_854_592, _AWQ),
    _quantized("GPTQ", shapes.gptq, 5_732_835_328, _GPTQ),
    _quantized("FP8-dynamic", shapes.fp8_channel, 9_083_953_152, _FP8),
    _quantized("compressed-tensors-w4a16", shapes.packed, 5_700_595_200, _W4A16),
    _quantized(
        "NVFP4",
        shapes.nvfp4,
        6_027_749_120,
        _MODELOPT,
        **{"hf_quant_config.json": {"quantization": {"quant_algo": "NVFP4", "group_size": 16}}},
    ),
    _quantized("bitsandbytes-nf4", shapes.nf4, 5_702_575_104, _NF4),
)

_WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"],
    "model_type": "whisper",
    "is_encoder_decoder": True,
    "d_model": 1280,
    "decoder_layers": 4,
    "decoder_attention_heads": 20,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "vocab_size": 51_866,
    "num_mel_bins": 128,
    "torch_dtype": "float16",
}
_ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "meta-llama/Llama-3.1-8B-Instruct",
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj", "v_proj"],
}
_LORA: Tensors = {
    f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{side}.weight": ("BF16", shape)
    for layer in range(32)
    for name, outputs in (("q_proj", 4096), ("v_proj", 1024))
    for side, shape in (("A", (16, 4096)), ("B", (outputs, 16)))
}


def _gguf(architecture: str = "llama") -> bytes:
    """The head of a GGUF file: version 3, no tensors, three keys."""

    def text(value: str) -> bytes:
        return len(value.encode()).to_bytes(8, "little") + value.encode()

    keys = {
        "general.architecture": architecture,
        "general.name": "zoo",
        "tokenizer.chat_template": template("chatml"),
    }
    pairs = b"".join(text(key) + (8).to_bytes(4, "little") + text(value) for key, value in keys.items())
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + len(keys).to_bytes(8, "little") + pairs


def _adapter(model_id: str, expected: Expected, **more: Any) -> Specimen:
    files = {"adapter_config.json": {**_ADAPTER, **more}, "adapter_model.safetensors": file_of(_LORA)}
    return Specimen(model_id, {**files, "README.md": "base_model: meta-llama"}, expected)


_TOKENIZED = tokenizer.files(template("chatml"))
OTHER_FORMATS = (
    Specimen(
        "openai/whisper-large-v3-turbo",
        {
            "config.json": _WHISPER,
            "preprocessor_config.json": {"feature_extractor_type": "WhisperFeatureExtractor"},
            **tokenizer.files(None, longest=448),
            **files_of({"model.decoder.embed_tokens.weight": ("F16", (51_866, 1280))}),
        },
        Expected("transcription"),
    ),
    Specimen(
        "zoo/SmolLM2-135M-GGUF",
        {"smollm2-135m-instruct-q8_0.gguf": _gguf(), "README.md": "quantized"},
        Expected("chat", "transformers"),
    ),
    Specimen(
        "zoo/onnx-only",
        {
            "config.json": _LLAMA,
            "onnx/model.onnx": b"onnx",
            "onnx/model_quantized.onnx": b"onnx",
            **_TOKENIZED,
        },
        Expected(None, reason="onnx"),
    ),
    Specimen(
        "stabilityai/stable-diffusion-3.5",
        {
            "model_index.json": {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.30.0"},
            "transformer/config.json": {"_class_name": "SD3Transformer2DModel"},
            "transformer/diffusion_pytorch_model.safetensors": b"weights",
            "sd3.5_large.safetensors": b"weights",
        },
        Expected(None, reason="diffusion"),
    ),
    # vLLM and transformers read such pickles; torch.load is told to build nothing but tensors.
    Specimen(
        "zoo/pickle-only",
        {"config.json": _LLAMA, "pytorch_model.bin": b"PK\x03\x04pickled", **_TOKENIZED},
        Expected(None, reason="pickle"),
    ),
    _adapter("zoo/adapter-of-llama", Expected("chat")),
    _adapter(
        "zoo/adapter-without-base",
        Expected(None, reason="nobody/not-here"),
        base_model_name_or_path="nobody/not-here",
    ),
    Specimen(
        "zoo/vision-encoder",
        {"config.json": {"architectures": ["ViTForImageClassification"]}, **files_of(_LORA)},
        Expected(None, reason="which is not served"),
    ),
    Specimen(
        "google-t5/t5-small",
        {
            "config.json": {
                "architectures": ["T5ForConditionalGeneration"],
                "model_type": "t5",
                "is_encoder_decoder": True,
            },
            **_TOKENIZED,
            **files_of(_LORA),
        },
        Expected(None, reason="encoder-decoder"),
    ),
    Specimen(
        "zoo/speech-synthesis",
        {"config.json": {"architectures": ["SpeechT5ForTextToSpeech"]}, **files_of(_LORA)},
        Expected(None, reason="speech synthesis"),
    ),
)

FORMATS = (*QUANTIZED, *OTHER_FORMATS)
