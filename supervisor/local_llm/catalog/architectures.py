"""Model classes whose purpose their name alone does not tell, as facts.

The multimodal ones are those of vLLM 0.32.0's registry (`model_executor/models/registry.py`,
`_MULTIMODAL_MODELS`); what each takes is what its `get_supported_mm_limits` says, and whether it transcribes
is whether its class is one of `SupportsTranscription`. A test compares them with the installed vLLM.
"""

from __future__ import annotations

import re

IMAGE_CHAT = frozenset(
    [
        "AriaForConditionalGeneration",
        "BagelForConditionalGeneration",
        "BailingMoeV3VLForConditionalGeneration",
        "BeeForConditionalGeneration",
        "Blip2ForConditionalGeneration",
        "Cohere2VisionForConditionalGeneration",
        "CohereCompassForConditionalGeneration",
        "Cosmos3ForConditionalGeneration",
        "Cosmos3EdgeForConditionalGeneration",
        "DeepseekVLV2ForCausalLM",
        "DeepseekOCRForCausalLM",
        "DeepseekOCR2ForCausalLM",
        "DeepseekV4ForConditionalGeneration",
        "DeepseekV41ForCausalLM",
        "DiffusionGemmaForBlockDiffusion",
        "Dots3NoteForCausalLM",
        "DotsOCRForCausalLM",
        "Eagle2_5_VLForConditionalGeneration",
        "Ernie4_5_VLMoeForConditionalGeneration",
        "Exaone4_5_ForConditionalGeneration",
        "GLM4VForCausalLM",
        "Gemma3ForConditionalGeneration",
        "Gemma3nForConditionalGeneration",
        "Gemma4ForConditionalGeneration",
        "Gemma4UnifiedForConditionalGeneration",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "Glm5NextForConditionalGeneration",
        "GlmOcrForConditionalGeneration",
        "Granite4VisionForConditionalGeneration",
        "H2OVLChatModel",
        "HfMoondream",
        "Idefics3ForConditionalGeneration",
        "InternS1ForConditionalGeneration",
        "InternS1ProForConditionalGeneration",
        "InternS2MobiusForConditionalGeneration",
        "InternS2PreviewForConditionalGeneration",
        "InternVLChatModel",
        "InternVLForConditionalGeneration",
        "IsaacForConditionalGeneration",
        "KananaVForConditionalGeneration",
        "KeyeForConditionalGeneration",
        "KeyeVL1_5ForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "KimiK3ForConditionalGeneration",
        "KimiVLForConditionalGeneration",
        "Lfm2VlForConditionalGeneration",
        "LightOnOCRForConditionalGeneration",
        "Llama4ForConditionalGeneration",
        "Llama_Nemotron_Nano_VL",
        "LlavaForConditionalGeneration",
        "LlavaNextForConditionalGeneration",
        "LlavaNextVideoForConditionalGeneration",
        "LlavaOnevisionForConditionalGeneration",
        "LlavaOnevision2ForConditionalGeneration",
        "MiMoV2OmniForCausalLM",
        "MiniCPMO",
        "MiniCPMV",
        "MiniCPMV4_6ForConditionalGeneration",
        "MiniCPMV4_7ForConditionalGeneration",
        "MiniMaxM3SparseForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "Molmo2ForConditionalGeneration",
        "MolmoForCausalLM",
        "Moondream3ForCausalLM",
        "MuseGlimmerForConditionalGeneration",
        "NVLM_D",
        "NemotronH_Nano_Omni_Reasoning_V3",
        "NemotronH_Nano_VL_V2",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Super_Omni_Reasoning_V3",
        "NemotronParseForConditionalGeneration",
        "OpenCUAForConditionalGeneration",
        "OpenPanguVLForConditionalGeneration",
        "Ovis",
        "Ovis2_5",
        "Ovis2_6ForCausalLM",
        "Ovis2_6_MoeForCausalLM",
        "PaddleOCRVLForConditionalGeneration",
        "PaliGemmaForConditionalGeneration",
        "Phi3VForCausalLM",
        "Phi4ForCausalLMV",
        "Phi4MMForCausalLM",
        "PixtralForConditionalGeneration",
        "QianfanOCRForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5OmniForConditionalGeneration",
        "Qwen2_5OmniModel",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3OmniMoeForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen4ExpForConditionalGeneration",
        "RForConditionalGeneration",
        "SkyworkR1VChatModel",
        "SmolVLMForConditionalGeneration",
        "Step3VLForConditionalGeneration",
        "Step3p7ForConditionalGeneration",
        "StepVLForConditionalGeneration",
        "UnlimitedOCRForCausalLM",
    ]
)
"""They chat about images, or videos."""

AUDIO_CHAT = frozenset(
    [
        "AudioFlamingo3ForConditionalGeneration",
        "FunAudioChatForConditionalGeneration",
        "MiDashengLMModel",
        "MoonshotKimiaForCausalLM",
        "MossAudioModel",
        "Qwen2AudioForConditionalGeneration",
        "UltravoxModel",
        "VoxtralForConditionalGeneration",
    ]
)
"""They chat about sounds, and take no images."""

TRANSCRIPTION = frozenset(
    [
        "CohereAsrForConditionalGeneration",
        "FireRedASR2ForConditionalGeneration",
        "FunASRForConditionalGeneration",
        "GlmAsrForConditionalGeneration",
        "GraniteSpeechForConditionalGeneration",
        "GraniteSpeechPlusForConditionalGeneration",
        "MossTranscribeDiarizeForConditionalGeneration",
        "Qwen3ASRForConditionalGeneration",
        "Qwen3ASRRealtimeGeneration",
        "VoxtralRealtimeGeneration",
        "WhisperForConditionalGeneration",
    ]
)
"""They are made for writing down what is said."""

TRANSCRIBE_TOO = frozenset(
    [
        "Gemma3nForConditionalGeneration",
        "MoonshotKimiaForCausalLM",
        "Qwen3OmniMoeForConditionalGeneration",
        "VoxtralForConditionalGeneration",
    ]
)
"""Of those that chat."""

CHAT_TOO = frozenset(
    [
        "GlmAsrForConditionalGeneration",
        "GraniteSpeechForConditionalGeneration",
        "GraniteSpeechPlusForConditionalGeneration",
        "Qwen3ASRForConditionalGeneration",
    ]
)
"""Of those that transcribe."""

NOT_CHATTING = frozenset({"OpenVLAForActionPrediction"})
"""The rest of vLLM's multimodal registry: a robot's movements."""

TEMPLATES_OF_VLLM = frozenset(
    [
        "Blip2ForConditionalGeneration",
        "DeepseekOCR2ForCausalLM",
        "DeepseekOCRForCausalLM",
        "DeepseekVLV2ForCausalLM",
        "MiniCPMV",
        "MiniCPMV4_6ForConditionalGeneration",
        "MiniCPMV4_7ForConditionalGeneration",
        "PaliGemmaForConditionalGeneration",
        "UnlimitedOCRForCausalLM",
    ]
)
"""vLLM has a chat template of its own for folders without one (`transformers_utils/chat_templates`)."""

_ENCODER_DECODERS = (
    r"BART|Bart|BigBirdPegasus|Blenderbot(Small)?|EncoderDecoder|FSMT|Florence2|LED|LongT5|M2M100|MBart|MT5|MVP"
    r"|Marian|NllbMoe|PLBart|Pegasus(X)?|Pix2Struct|(XLM)?ProphetNet|SwitchTransformers|T5(Gemma)?|TrOCR|UMT5"
    r"|Udop|VisionEncoderDecoder"
)
ENCODER_DECODER = re.compile(
    rf"({_ENCODER_DECODERS})(For(ConditionalGeneration|CausalLM)|MTModel|LMHeadModel|Model|WithLMHeadModel)"
)
"""They write text, or read images, with an encoder: vLLM runs them no more. T5EncoderModel is none of
them, nor is BartForSequenceClassification."""

ENCODER = re.compile(r"(?i:bert|electra|mpnet|ernie|longformer|bigbird|funnel|fnet|luke|canine)|^XLM|^Gte")
"""Part of the classes of encoders of text."""

ENCODER_TYPES = frozenset(
    [
        "albert",
        "bert",
        "big_bird",
        "camembert",
        "canine",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "eurobert",
        "flaubert",
        "fnet",
        "funnel",
        "gte",
        "ibert",
        "longformer",
        "luke",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "mra",
        "nomic_bert",
        "nystromformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "squeezebert",
        "xlm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
        "yoso",
    ]
)
"""`model_type` of encoders of text: those with a masked language model in transformers 5.19."""

_SPEECH_RECOGNITION = (
    r"For(CTC|SpeechSeq2Seq|RNNT|TDT)$|^SpeechEncoderDecoderModel$"
    r"|^(Speech2Text|Moonshine|KyutaiSpeechToText|SeamlessM4T|Parakeet)"
)
_SPEECH_SYNTHESIS = (
    r"For(TextToWaveform|TextToSpeech|TextToSpectrogram)$"
    r"|^(Bark\w*Model|Csm\w+|Dia(For\w+|Model)|FastSpeech2\w+|Musicgen\w+|ParlerTTS\w+|Vits\w+)$"
)
_VISION = (
    r"For(Image|Video|Object|Depth|Semantic|Instance|Universal|ZeroShot(Image|Object)|Mask\w*Image)\w*$"
    r"|^(ViT|Vivit|Dinov\d|DINOv\d|Swin|Beit|DeiT|ConvNext|ResNet|RegNet|Hiera|IJepa|VJEPA\d?|Aimv2|MobileNet"
    r"|MobileViT|EfficientNet|VideoMAE|Timesformer|Timm|CLIPVision|SiglipVision|Siglip2Vision|Sam\d?)"
    r"\w*(Model|ForPreTraining)$"
    # Images as well as text: with a tokenizer, but not for text alone.
    r"|^\w*(CLIP|Clip|Siglip)\d?Model$|^Blip(Model|For\w+)$|^GitForCausalLM$"
    r"|^(Align|Blip2|BridgeTower|CLIPSeg|Flava|Git|GroundingDino|GroupViT|Lxmert|MMGroundingDino|Owl(ViT|v2)"
    r"|Vilt|VisionTextDualEncoder|VisualBert)(Model|ForPreTraining)$"
)
_SOUNDS = (
    r"^(Wav2Vec2|Hubert|WavLM|UniSpeech|SEW|Data2VecAudio|Encodec|Mimi|Dac|Clap|AST)"
    r"\w*(Model|ForPreTraining)$"
)
_LAYOUTS = r"^(LayoutLM(v\d)?|Bros|Lilt)(Model|ForMaskedLM)$"
_FORECASTS = r"For(Prediction|Forecasting)$|^(TimesFm\w*|PatchTS\w+|Autoformer|Informer|TimeSeries\w+)Model$"

NOT_SERVED = tuple(
    (re.compile(pattern), purpose)
    for pattern, purpose in (
        (_SPEECH_RECOGNITION, "speech recognition that vLLM does not run"),
        (r"For(AudioClassification|AudioFrameClassification|AudioXVector)$", "audio classification"),
        (_SPEECH_SYNTHESIS, "speech synthesis"),
        (_SOUNDS, "sounds rather than text"),
        (_VISION, "vision"),
        (_LAYOUTS, "the layout of pages"),
        (_FORECASTS, "forecasts of time series"),
        (r"ForTokenClassification$", "token classification"),
        (r"For(QuestionAnswering|MultipleChoice|NextSentencePrediction)$", "question answering"),
        (r"RewardModel(With\w+)?$", "reward modelling"),
        (r"ForActionPrediction$", "a robot's movements"),
        (r"ColBERT|^Col(Pali|Qwen|Idefics)|ForLateInteraction$", "multi-vector embeddings"),
        (r"(DraftModel|MTP|MTPModel|MedusaModel|Eagle3?)$", "speculative decoding"),
    )
)
"""What a class is made for, where that is nothing that is served here."""
