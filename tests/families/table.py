"""The families: what transformers can build small, by kind, each with what it is asked.

Causal models are all that transformers maps to AutoModelForCausalLM, encoders all of AutoModelForMaskedLM, and so on;
what is missing of them stands in NOT_BUILT, with the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import changes
import inputs
import torch
import transformers
from inputs import Inputs
from pictures import SEEING, VISION
from shrink import small_config
from sounds import HEARING
from torch import Tensor
from transformers.models.auto import modeling_auto as auto


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model type in one of its kinds: how to build a small one, and what to ask it."""

    kind: str
    name: str
    model_type: str
    architecture: str
    changes: Mapping[str, Any]
    ask: Inputs

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"

    @property
    def dtype(self) -> torch.dtype:
        """What the model is used in: bfloat16, unless transformers' own does not run in it."""
        return torch.float32 if self.model_type in FLOAT32_ONLY else torch.bfloat16

    @property
    def writes(self) -> bool:
        """Whether it makes a text token by token."""
        return self.kind in ("causal", "encoder-decoder", "seeing", "hearing") and self.name not in SILENT

    @property
    def has_gradients_in_training_only(self) -> bool:
        """Whether transformers' own refuses gradients in eval mode."""
        return self.model_type in TRAINING_ONLY

    @property
    def cls(self) -> Any:
        return getattr(transformers, self.architecture)

    def build(self, dtype: torch.dtype = torch.float32) -> Any:
        """A model with random weights in eval mode, the same each time."""
        torch.manual_seed(0)
        return self.cls(small_config(self.model_type, **self.changes)).to(dtype).eval()

    def inputs(self, model: Any) -> dict[str, Tensor]:
        """What to ask; pictures and sounds in the model's dtype."""
        return {name: _cast(value, model.dtype) for name, value in self.ask(model).items()}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, tuple):
        return tuple(_cast(part, dtype) for part in value)
    return value.to(dtype) if value.is_floating_point() else value


#: Kind -> transformers' table of it, what its families change, what they are asked.
KINDS: dict[str, tuple[Mapping[str, Any], dict[str, dict[str, Any]], Inputs]] = {
    "causal": (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, changes.CAUSAL, inputs.text),
    "encoder": (auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, changes.ENCODER, inputs.text),
    "encoder-decoder": (auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, changes.ENCODER_DECODER, inputs.two_texts),
}

#: What some families need to be asked so that all their layers run.
ASKED: dict[str, dict[str, Inputs]] = {
    "causal": {
        **dict.fromkeys(
            [
                "bart",
                "bigbird_pegasus",
                "blenderbot",
                "blenderbot-small",
                "marian",
                "mbart",
                "mvp",
                "pegasus",
                "plbart",
                "prophetnet",
                "trocr",
            ],
            inputs.text_after_states,
        ),
        "whisper": inputs.text_after_outputs,
    },
    "encoder": {"longformer": inputs.global_text, "luke": inputs.text_and_entities},
    "encoder-decoder": {"led": inputs.global_texts},
}

#: Model types whose own code mixes float32 with bfloat16.
FLOAT32_ONLY = ("deberta", "fnet", "inkling2_text", "mra", "reformer", "xlnet")

#: What sees or hears, and does not write as others do.
SILENT = [
    "modernvbert",
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "unispeech-sat",
    "data2vec-audio",
    "wav2vec2-conformer",
    "sew",
    "wav2vec2-bert",
    "audio-spectrogram-transformer",
    "lasr_ctc",
    "parakeet_ctc",
    "patchtst",
    "timesfm",
    "time_series_transformer",
    "decision_transformer",
    "pop2piano",
]

#: Model types that give gradients in training mode only.
TRAINING_ONLY = ("reformer",)

_PART = "the same model without its other parts is tried: "
_TIMM = "needs the package timm"
_SEES = "a model of pictures, tried as such, or one like it"
_HEARS = "a model of sound, tried as such, or one like it"
_DRAFTS = "reads the keys of the model that it drafts for"
_OF_THREE = "a composite of three models, whose decoder has no config of its own here"
_TWO_STACKS = "an encoder-decoder, tried as such"

#: What stands in transformers' tables and is not in ours: why.
NOT_BUILT: dict[str, dict[str, str]] = {
    "causal": {
        **{
            name: _PART + f"{name}_text"
            for name in ["dots3_note", "gemma4", "gemma4_unified", "llama4", "qwen3_5", "qwen3_5_moe", "qwen4_exp"]
        },
        **dict.fromkeys(("emu3", "fuyu", "gemma3", "git", "got_ocr2", "phi4_multimodal"), _SEES),
        **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), _DRAFTS),
        **dict.fromkeys(("musicgen", "musicgen_melody"), _OF_THREE),
        "gemma3n": _TIMM,
        "moss_transcribe_diarize": _HEARS,
    },
    "encoder": {
        **dict.fromkeys(("bart", "mbart", "mvp"), _TWO_STACKS),
        **dict.fromkeys(("modernvbert", "ultravbert"), _SEES),
    },
    "encoder-decoder": {
        **dict.fromkeys(
            [
                "audioflamingo3",
                "glmasr",
                "granite_speech",
                "granite_speech_plus",
                "moss_transcribe_diarize",
                "musicflamingo",
                "nemo_speechlm",
                "qwen2_audio",
                "qwen3_asr",
                "vibevoice_asr",
                "voxtral",
                "voxtral_realtime",
            ],
            _HEARS,
        ),
        "t5gemma2": _SEES,
    },
}


def _of_text() -> Iterator[Family]:
    for kind, (names, changed, ask) in KINDS.items():
        for name in names:
            if name not in NOT_BUILT[kind]:
                asked = ASKED[kind].get(name, ask)
                yield _family(kind, name, names[name], changed.get(name, {}), asked)


def _of_senses() -> Iterator[Family]:
    for name, (architecture, changed, ask) in VISION.items():
        known = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        yield _family("vision", name, architecture or known[name], changed, ask)
    for name, (changed, ask) in SEEING.items():
        known = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES | auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        yield _family("seeing", name, known[name], changed, ask)
    for name, (architecture, changed, ask) in HEARING.items():
        yield _family("hearing", name, architecture, changed, ask)


def _family(kind: str, name: str, architecture: Any, changed: Mapping[str, Any], ask: Inputs) -> Family:
    return Family(
        kind=kind,
        name=name,
        model_type=name.removesuffix("-both"),
        architecture=architecture if isinstance(architecture, str) else architecture[0],
        changes=changed,
        ask=ask,
    )


FAMILIES = (*_of_text(), *_of_senses())
