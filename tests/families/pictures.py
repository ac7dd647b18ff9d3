"""Families that see: classifiers of pictures and others, and language models that read pictures among tokens."""

from typing import Any

import inputs
import torch
from inputs import Inputs
from shrink import small_fields
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIZE = 32  # pixels
_STAGES = {"depths": [1, 1], "hidden_sizes": [32, 64]}
_SWIN = {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "patch_size": 4, "hidden_size": 64}
_PYRAMID = {
    **_STAGES,
    "num_encoder_blocks": 2,
    "num_attention_heads": [1, 2],
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "mlp_ratios": [2, 2],
}


def pixels(model: Any, size: int = SIZE) -> dict[str, Tensor]:
    """Random pictures [BATCH, 3, size, size]."""
    generator = torch.Generator().manual_seed(4)
    return {"pixel_values": torch.randn(inputs.BATCH, 3, size, size, generator=generator)}


def patches(model: Any) -> dict[str, Tensor]:
    """Pictures that were cut into 16 patches of 8 x 8 before."""
    values = torch.randn(inputs.BATCH, 16, 192, generator=torch.Generator().manual_seed(4))
    shapes = torch.tensor([[4, 4]] * inputs.BATCH)
    return {
        "pixel_values": values,
        "pixel_attention_mask": torch.ones(inputs.BATCH, 16).long(),
        "spatial_shapes": shapes,
    }


def pixels_and_text(model: Any) -> dict[str, Tensor]:
    return {**pixels(model), **inputs.text(model)}


#: Model type -> its class, where it is none of AutoModelForImageClassification; what it changes; what it is asked.
VISION: dict[str, tuple[str | None, dict[str, Any], Inputs]] = {
    **{
        name: (None, {}, pixels)
        for name in [
            "beit",
            "clip",
            "data2vec-vision",
            "deit",
            "dinov2",
            "dinov2_with_registers",
            "ijepa",
            "metaclip_2",
            "siglip",
            "vit",
            "vit_msn",
        ]
    },
    "convnext": (None, {**_STAGES, "num_stages": 2}, pixels),
    "convnextv2": (None, {**_STAGES, "num_stages": 2}, pixels),
    "focalnet": (
        None,
        {**_STAGES, "embed_dim": 32, "focal_levels": [2, 2], "focal_windows": [3, 3], "patch_size": 4},
        pixels,
    ),
    "pvt": (None, {**_PYRAMID, "sequence_reduction_ratios": [2, 1]}, pixels),
    "pvt_v2": (None, {**_PYRAMID, "sr_ratios": [2, 1], "patch_sizes": [7, 3]}, pixels),
    "segformer": (None, {**_PYRAMID, "sr_ratios": [2, 1], "patch_sizes": [7, 3]}, pixels),
    "mobilevit": (
        None,
        {
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [16, 16, 32, 32, 48, 64, 64],
            "patch_size": 2,
            "image_size": 64,
        },
        lambda m: pixels(m, 64),
    ),
    "poolformer": (
        None,
        {**_STAGES, "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1]},
        pixels,
    ),
    "resnet": (None, {**_STAGES, "embedding_size": 16}, pixels),
    "siglip2": (None, {"vision_config": {"num_patches": 16}}, patches),
    "swin": (None, _SWIN, pixels),
    "swinv2": (None, _SWIN | {"pretrained_window_sizes": [0, 0]}, pixels),
    "donut-swin": (None, _SWIN, pixels),
    "levit": (
        None,
        {
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "patch_size": 16,
            "image_size": 64,
            "down_ops": [["Subsample", 16, 2, 2, 2, 2], ["Subsample", 16, 3, 2, 2, 2]],
        },
        lambda m: pixels(m, 64),
    ),
    "hiera": (
        None,
        {
            "embed_dim": 32,
            "image_size": [32, 32],
            "depths": [1, 1],
            "num_heads": [1, 2],
            "num_query_pool": 1,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, False],
        },
        pixels,
    ),
    "cvt": (
        None,
        {"patch_sizes": [7, 3, 3], "embed_dim": [32, 48, 64], "depth": [1, 2, 3], "num_heads": [1, 3, 4]},
        pixels,
    ),
    "imagegpt": ("ImageGPTForCausalImageModeling", {}, inputs.text),
    "yolos": ("YolosForObjectDetection", {"image_size": [32, 32], "num_detection_tokens": 8}, pixels),
    "dpt": (
        "DPTForDepthEstimation",
        {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [16, 16, 32, 32],
            "fusion_hidden_size": 32,
        },
        pixels,
    ),
    "vit_mae": (
        "ViTMAEForPreTraining",
        {
            "decoder_hidden_size": 32,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 2,
            "decoder_intermediate_size": 64,
        },
        pixels,
    ),
    "clip-both": ("CLIPModel", {}, pixels_and_text),
}


def picture_text(num_tokens: int, **more: Any) -> Inputs:
    """A picture among tokens: so many of the text stand for it. `more` are inputs that the family wants besides."""

    def ask(model: Any) -> dict[str, Tensor]:
        ids = inputs.token_ids(model)
        place = next(
            i
            for name in ("image_token_id", "image_token_index")
            if (i := getattr(model.config, name, None)) is not None
        )
        image = torch.full((inputs.BATCH, num_tokens), place)
        ids = torch.cat([ids[:, :4], image, ids[:, 4:8]], dim=1)
        types = (ids == place).long()
        asked = {
            "input_ids": ids,
            **pixels(model),
            **{k: v(model, types) if callable(v) else v for k, v in more.items()},
        }
        return {k: v for k, v in asked.items() if v is not None}

    return ask


def flat_patches(width: int, count: int = 16) -> Any:
    """Pictures as rows of patches, all of the batch together."""
    return lambda model, types: torch.randn(inputs.BATCH * count, width, generator=torch.Generator().manual_seed(4))


GRID = torch.tensor([[1, 4, 4]] * inputs.BATCH)
_TYPES = {"mm_token_type_ids": lambda model, types: types}

#: Language models that read pictures.
SEEING: dict[str, tuple[dict[str, Any], Inputs]] = {
    "llava": ({}, picture_text(16)),
    "vipllava": ({"vision_feature_layers": [-2, -1]}, picture_text(16)),
    "aya_vision": ({}, picture_text(4)),
    "paligemma": ({}, picture_text(16)),
    "gemma3": ({"mm_tokens_per_image": 4}, picture_text(4, token_type_ids=lambda model, types: types)),
    "mistral3": ({}, picture_text(4, image_sizes=torch.tensor([[32, 32]] * 2))),
    "internvl": ({}, picture_text(1)),
    "idefics3": ({}, picture_text(4, pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None])),
    "smolvlm": ({}, picture_text(4, pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None])),
    "idefics2": (
        {"perceiver_config": {"resampler_n_latents": 4}},
        picture_text(4, pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None]),
    ),
    "qwen2_vl": (
        {
            "text_config": {
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
            }
        },
        picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES),
    ),
    "qwen2_5_vl": (
        {
            "text_config": {
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
            }
        },
        picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES),
    ),
    "qwen3_vl": (
        {"vision_config": {"deepstack_visual_indexes": [0, 1]}},
        picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES),
    ),
    "qwen3_vl_moe": (
        {"vision_config": {"deepstack_visual_indexes": [0, 1]}},
        picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES),
    ),
    "qwen3_5": ({}, picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES)),
    "mllama": (
        {
            "text_config": {"num_hidden_layers": 4, "cross_attention_layers": [1, 3]},
            "vision_config": {"num_global_layers": 2, "intermediate_layers_indices": [0, 1], "vision_output_dim": 192},
        },
        picture_text(
            0,
            pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None, None].expand(-1, 1, 4, -1, -1, -1),
            aspect_ratio_ids=torch.ones(2, 1).long(),
            aspect_ratio_mask=torch.ones(2, 1, 4).long(),
            cross_attention_mask=torch.ones(2, 8, 1, 4).long(),
        ),
    ),
    "ovis2": ({}, picture_text(16)),
    "llava_next": (
        {"image_grid_pinpoints": [[32, 32]]},
        picture_text(
            36,
            image_sizes=torch.tensor([[32, 32]] * 2),
            pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None].expand(-1, 2, -1, -1, -1),
        ),
    ),
    "llava_onevision": (
        {"image_grid_pinpoints": [[32, 32]]},
        picture_text(
            36,
            image_sizes=torch.tensor([[32, 32]] * 2),
            pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None].expand(-1, 2, -1, -1, -1),
        ),
    ),
    "lighton_ocr": ({}, picture_text(4, image_sizes=torch.tensor([[32, 32]] * 2))),
    "deepseek_vl": ({}, picture_text(16)),
    "blip": ({}, pixels_and_text),
    "blip-2": ({"num_query_tokens": 4, "image_token_index": 500}, picture_text(4)),
    "instructblip": (
        {"num_query_tokens": 4, "image_token_index": 500},
        picture_text(4, qformer_input_ids=lambda m, t: inputs.token_ids(m)),
    ),
    "git": ({}, pixels_and_text),
    "lfm2_vl": (
        {"vision_config": {"num_patches": 16}},
        picture_text(
            4,
            **dict.fromkeys(["pixel_values"], lambda m, t: patches(m)["pixel_values"]),
            pixel_attention_mask=torch.ones(2, 16).long(),
            spatial_shapes=torch.tensor([[4, 4]] * 2),
        ),
    ),
    "gemma4": (
        {
            "vision_config": {
                "model_type": "gemma4_vision",
                **small_fields(CONFIG_MAPPING["gemma4_vision"]()),
                "pooling_kernel_size": 2,
            }
        },
        picture_text(
            4,
            pixel_values=lambda m, t: patches(m)["pixel_values"],
            image_position_ids=torch.cartesian_prod(torch.arange(4), torch.arange(4)).expand(2, 16, 2),
            **_TYPES,
        ),
    ),
    "aria": ({"projector_patch_to_query_dict": {16: 4}}, picture_text(4)),
    "fuyu": ({}, inputs.text),
    "cohere2_vision": ({"alignment_intermediate_size": 64}, picture_text(4)),
    "kosmos-2": (
        {"latent_query_num": 4},
        lambda m: {**pixels_and_text(m), "image_embeds_position_mask": (torch.arange(16) < 4).long().expand(2, 16)},
    ),
    "t5gemma2": (
        {"encoder": {"mm_tokens_per_image": 4}},
        picture_text(4, decoder_input_ids=lambda m, t: inputs.token_ids(m, 8, seed=2)),
    ),
    "modernvbert": ({}, picture_text(1, pixel_values=lambda m, t: pixels(m)["pixel_values"][:, None])),
    "glm4v": (
        {
            "text_config": {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [1, 1, 2],
                }
            }
        },
        picture_text(4, pixel_values=flat_patches(384), image_grid_thw=GRID, **_TYPES),
    ),
    "vision-encoder-decoder": ({}, lambda m: {**pixels(m), "decoder_input_ids": inputs.token_ids(m)}),
}
