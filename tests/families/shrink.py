"""Make a transformers config small: each field that sets a size, by the names that configs give it, gets a small value.

    small_config("qwen3_moe")                      two layers of width 64, four experts, 512 tokens
    small_config("gemma3", text_config={...})      what a family wants otherwise; a dict changes a part of a part

Only fields that a config has by default are set, so that what it derives from them is derived anew. A list with one
entry a layer keeps the first few kinds of entries, and there are then as many layers.
"""

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 512
WIDTH = 64
POSITIONS = 256

#: Small value -> the fields that get it.
SIZES: dict[int, str] = {
    VOCABULARY: "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input vocab_offset",
    POSITIONS: "max_position_embeddings n_positions n_ctx max_seq_len model_max_length max_target_positions "
    "max_source_positions context_length original_max_position_embeddings original_max_position_embedding",
    WIDTH: "hidden_size d_model n_embd emb_dim embedding_dim model_dim encoder_hidden_size decoder_hidden_size "
    "word_embed_proj_dim attention_hidden_size lru_width moe_intermediate_size shared_expert_intermediate_size "
    "moe_shared_expert_intermediate_size expert_ffn_hidden_size shared_intermediate_size "
    "shared_experts_intermediate_size embed_dim projection_dim out_hidden_size projector_dim hidden_dim "
    "input_embedding_size output_embedding_size embedding_size backbone_hidden_size hidden_size_global "
    "expert_dim moe_ffn_hidden_size decoder_hidden_size_per_layer proj_dim",
    128: "intermediate_size ffn_dim d_ff n_inner dff dim_ff d_inner encoder_ffn_dim decoder_ffn_dim ffn_hidden_size "
    "intermediate_size_mlp dense_intermediate_size feed_forward_size mlp_dim feedforward_dim mamba_d_ssm "
    "block_ff_dim ffn_intermediate_size",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers num_blocks depth num_key_value_heads moe_num_shared_experts linear_num_key_heads "
    "swa_num_key_value_heads encoder_num_hidden_layers "
    "decoder_num_hidden_layers num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k topk top_k_experts "
    "conf_num_hidden_layers vision_layers encoder_num_layers decoder_num_layers max_window_layers",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads num_experts n_routed_experts num_local_experts "
    "moe_num_experts linear_num_value_heads swa_num_attention_heads conf_num_attention_heads linear_num_heads "
    "encoder_num_attention_heads decoder_num_attention_heads num_query_groups",
    16: "head_dim d_kv d_head attention_head_size attention_head_dim kv_channels dim_head linear_key_head_dim "
    "linear_value_head_dim linear_head_dim swa_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim index_head_dim "
    "mamba_d_head mamba_head_dim mamba_headdim mamba_d_state ssm_state_size state_size global_head_dim time_step_rank "
    "mamba_dt_rank laurel_rank adapter_rank",
    32: "q_lora_rank kv_lora_rank o_lora_rank hidden_size_per_layer_input index_topk sliding_window image_size "
    "sliding_window_size attention_window_size attention_chunk_size local_attention window_size router_hidden_size",
    8: "mamba_n_heads mamba_num_heads n_mamba_heads mamba_chunk_size chunk_size patch_size num_mel_bins rotary_dim",
    1: "n_group topk_group num_expert_group first_k_dense_replace n_groups mamba_n_groups mamba_ngroups "
    "num_nextn_predict_layers num_dense_layers o_groups n_shared_experts num_shared_experts",
}
SMALL = {name: size for size, names in SIZES.items() for name in names.split()}

#: Tokens with a meaning, where a config names them.
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}

#: Other tokens, by the first word of their field, where their default is beyond the small vocabulary.
PLACES = {"image": 500, "video": 501, "audio": 502, "boi": 503, "eoi": 504, "vision": 505, "boa": 506, "eoa": 507}

#: Lists with an entry a layer keep so many.
MAX_LAYERS = 4


def small_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The config of a model type with small sizes; `changes` win, and reach into the configs of its parts."""
    cls = CONFIG_MAPPING[model_type]
    return cls(**_merged(small_fields(cls()), changes))


def small_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of a default config that are to be smaller, by name; those of its parts as dicts."""
    fields: dict[str, Any] = {}
    default = config.to_dict()
    for name, value in default.items():
        part = vars(config).get(name)
        if isinstance(part, PreTrainedConfig):
            fields[name] = {**small_fields(part), **_type_of(part)}
        elif name in SMALL and isinstance(value, int) and not isinstance(value, bool):
            fields[name] = _small(name, value, default)
        elif name in TOKENS and value is not None:
            fields[name] = TOKENS[name]
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int) and value >= VOCABULARY:
            fields[name] = PLACES.get(name.partition("_")[0], VOCABULARY - 1)
    fields |= _layer_lists(default, fields)
    return fields


def _small(name: str, value: int, default: dict[str, Any]) -> int:
    """The small value of a size; one key-value head for each head stays so."""
    heads = default.get("num_attention_heads")
    if name == "num_key_value_heads" and value == heads:
        return SMALL["num_attention_heads"]
    return min(value, SMALL[name])


def _layer_lists(default: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Lists with an entry a layer, cut so that each kind of entry is there; and how many layers that makes."""
    counts = [name for name in ("num_hidden_layers", "num_layers", "n_layer", "n_layers") if name in default]
    length = default[counts[0]] if counts else None
    lists = {n: v for n, v in default.items() if isinstance(v, list) and len(v) == length and length > 1}
    if not lists:
        return {}
    rows = list(zip(*(map(str, v) for v in lists.values()), strict=True))
    chosen = sorted({rows.index(row) for row in rows})[:MAX_LAYERS]
    if len(chosen) == 1:
        chosen.append(chosen[0])
    return {counts[0]: len(chosen)} | {name: [value[i] for i in chosen] for name, value in lists.items()}


def _type_of(config: PreTrainedConfig) -> dict[str, str]:
    return {"model_type": config.model_type} if config.model_type in CONFIG_MAPPING else {}


def _merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
