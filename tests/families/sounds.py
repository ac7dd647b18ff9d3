"""Families that hear, and those that read series of numbers: classifiers, recognizers, language models with an ear."""

from typing import Any

import inputs
import torch
from inputs import Inputs
from torch import Tensor


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def waves(model: Any) -> dict[str, Tensor]:
    """Samples of sound."""
    return {"input_values": _random(inputs.BATCH, 2000)}


def spectra(*shape: int, text: bool = True, **more: Any) -> Inputs:
    """Features [BATCH, *shape], and what the decoder begins with."""

    def ask(model: Any) -> dict[str, Tensor]:
        ids = {"decoder_input_ids": inputs.token_ids(model, 8)} if text else {}
        return {"input_features": _random(inputs.BATCH, *shape), **ids, **more}

    return ask


def sound_text(num_tokens: int, *shape: int, **more: Any) -> Inputs:
    """A sound among tokens: so many of the text stand for it."""

    def ask(model: Any) -> dict[str, Tensor]:
        ids = inputs.token_ids(model)
        place = next(
            i
            for name in ("audio_token_id", "audio_token_index")
            if (i := getattr(model.config, name, None)) is not None
        )
        sound = torch.full((inputs.BATCH, num_tokens), place)
        ids = torch.cat([ids[:, :4], sound, ids[:, 4:8]], dim=1)
        return {"input_ids": ids, "input_features": _random(inputs.BATCH, *shape), **more}

    return ask


#: Convolutions that turn samples into features, of small width.
_WAVES = {
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 8, 4],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "vocab_size": 32,
}

#: Model type -> class, changes, what it is asked.
HEARING: dict[str, tuple[str, dict[str, Any], Inputs]] = {
    "wav2vec2": ("Wav2Vec2ForCTC", _WAVES, waves),
    "hubert": ("HubertForCTC", _WAVES, waves),
    "wavlm": ("WavLMForCTC", _WAVES, waves),
    "unispeech": ("UniSpeechForCTC", _WAVES, waves),
    "unispeech-sat": ("UniSpeechSatForCTC", _WAVES, waves),
    "data2vec-audio": ("Data2VecAudioForCTC", _WAVES, waves),
    "wav2vec2-conformer": ("Wav2Vec2ConformerForCTC", _WAVES, waves),
    "sew": ("SEWForCTC", _WAVES | {"squeeze_factor": 2}, waves),
    "wav2vec2-bert": (
        "Wav2Vec2BertForCTC",
        {"vocab_size": 32, "feature_projection_input_dim": 32, "mask_time_prob": 0.0},
        spectra(20, 32, text=False),
    ),
    "audio-spectrogram-transformer": (
        "ASTForAudioClassification",
        {"max_length": 32, "num_mel_bins": 16, "frequency_stride": 8, "time_stride": 8},
        lambda m: {"input_values": _random(2, 32, 16)},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {"max_source_positions": 50, "suppress_tokens": None, "begin_suppress_tokens": None},
        spectra(8, 100),
    ),
    "speech_to_text": (
        "Speech2TextForConditionalGeneration",
        {"input_feat_per_channel": 16, "conv_channels": 32},
        spectra(64, 16),
    ),
    "moonshine": (
        "MoonshineForConditionalGeneration",
        {},
        lambda m: {"input_values": _random(2, 4000), "decoder_input_ids": inputs.token_ids(m, 8)},
    ),
    "speecht5": (
        "SpeechT5ForSpeechToText",
        _WAVES | {"vocab_size": 512},
        lambda m: {**waves(m), "decoder_input_ids": inputs.token_ids(m, 8)},
    ),
    "pop2piano": ("Pop2PianoForConditionalGeneration", {}, spectra(12, 64)),
    "qwen2_audio": (
        "Qwen2AudioForConditionalGeneration",
        {"audio_config": {"max_source_positions": 50}},
        sound_text(25, 8, 100, feature_attention_mask=torch.ones(2, 100).long()),
    ),
    "voxtral": (
        "VoxtralForConditionalGeneration",
        {"audio_token_id": 502, "audio_config": {"max_source_positions": 48, "intermediate_size": 256}},
        sound_text(12, 8, 96),
    ),
    "audioflamingo3": (
        "AudioFlamingo3ForConditionalGeneration",
        {"audio_config": {"max_source_positions": 50}},
        sound_text(25, 8, 100, input_features_mask=torch.ones(2, 100).long()),
    ),
    "granite_speech": (
        "GraniteSpeechForConditionalGeneration",
        {
            "encoder_config": {"input_dim": 16, "output_dim": 32, "context_size": 20},
            "window_size": 8,
            "downsample_rate": 4,
        },
        sound_text(6, 24, 16),
    ),
    "glmasr": (
        "GlmAsrForConditionalGeneration",
        {"audio_config": {"max_position_embeddings": 50}},
        sound_text(12, 8, 100, input_features_mask=torch.ones(2, 100).long()),
    ),
    "lasr_ctc": ("LasrForCTC", {}, spectra(64, 8, text=False)),
    "parakeet_ctc": ("ParakeetForCTC", {}, spectra(64, 8, text=False)),
    "patchtst": (
        "PatchTSTForPrediction",
        {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8},
        lambda m: {"past_values": _random(2, 32, 2)},
    ),
    "timesfm": (
        "TimesFmModelForPrediction",
        {"patch_length": 8, "horizon_length": 8},
        lambda m: {"past_values": _random(2, 32)},
    ),
    "time_series_transformer": (
        "TimeSeriesTransformerForPrediction",
        {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1},
        lambda m: {
            "past_values": _random(2, 10),
            "past_time_features": _random(2, 10, 1),
            "past_observed_mask": torch.ones(2, 10),
            "future_values": _random(2, 4),
            "future_time_features": _random(2, 4, 1),
        },
    ),
    "decision_transformer": (
        "DecisionTransformerModel",
        {"state_dim": 4, "act_dim": 2, "hidden_size": 64, "max_ep_len": 32},
        lambda m: {
            "states": _random(2, 6, 4),
            "actions": _random(2, 6, 2),
            "rewards": _random(2, 6, 1),
            "returns_to_go": _random(2, 6, 1),
            "timesteps": torch.arange(6).expand(2, 6),
            "attention_mask": torch.ones(2, 6).long(),
        },
    ),
}
