"""What a family wants beyond small sizes, as data: by kind and model type, what its small config says otherwise."""

from typing import Any

#: Decoders that are encoders unless told.
_DECODER = {"is_decoder": True}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_SLIDING = ["sliding_attention", "full_attention"]

CAUSAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64, "use_cache": False},
    "cohere_compass_text": {
        "layer_types": _SLIDING,
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note_text": {
        f"swa_{name}": size
        for name, size in {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "head_dim": 32,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
        }.items()
    },
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_d_head": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": _SLIDING * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "intermediate_size": [128] * 4,
        "altup_num_inputs": 2,
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16, "moe_topk": 2, "num_experts": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "ple_embed_dim": 64,
        "ngram_vocab_size_base": 64,
        "heads_per_ngram": 2,
        "split_ngram_parts": 2,
        "hc_lowrank": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds_dim": [32, 32],
        "axial_pos_shape": [4, 4],
        "attn_layers": ["local", "lsh"],
    },
    "roc_bert": {
        "is_decoder": True,
        "shape_vocab_size": 64,
        "pronunciation_vocab_size": 64,
        "shape_embed_dim": 32,
        "pronunciation_embed_dim": 32,
    },
    "xlstm": {"qk_dim_factor": 1.0},  # other shapes do not fit transformers' own cache
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "n_mamba_heads": 2,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 8,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_headdim": 16,
        "kv_channels": 16,
    },
}
for _type in [
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
]:
    CAUSAL[_type] = _DECODER

ENCODER: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4},
    "esm": {"vocab_size": 512, "pad_token_id": 0, "mask_token_id": 4},
    "luke": {"entity_vocab_size": 64, "entity_emb_size": 32},
    "perceiver": {
        "d_latents": 64,
        "num_latents": 16,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "qk_channels": 64,
        "v_channels": 64,
        "max_position_embeddings": 16,
    },
    "reformer": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [4, 4], "attn_layers": ["local", "lsh"]},
    "roc_bert": {key: value for key, value in CAUSAL["roc_bert"].items() if key != "is_decoder"},
    "xmod": {"default_language": "en_XX"},
}

ENCODER_DECODER: dict[str, dict[str, Any]] = {
    "fsmt": {"src_vocab_size": 512, "tgt_vocab_size": 512},
    "t5": {"decoder_start_token_id": 0},
}
