"""Small models of many classes, causal and not, and how they are saved."""

import torch
import transformers as T
from checkpoints import byte_tokenizer
from models import tiny_gpt2, tiny_llama

HALVES = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
BERT = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
PICTURE = {**VISION, "image_size": 32, "patch_size": 8}


def bart():
    return T.BartForConditionalGeneration(T.BartConfig(vocab_size=256, d_model=32, **HALVES, **HEADS))


def whisper():
    sizes = {"num_mel_bins": 16, "max_source_positions": 50, "max_target_positions": 64}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return T.WhisperForConditionalGeneration(
        T.WhisperConfig(vocab_size=256, d_model=32, **HALVES, **HEADS, **sizes, **ids)
    )


def t5():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T.T5ForConditionalGeneration(T.T5Config(vocab_size=256, **sizes, decoder_start_token_id=0))


def bert():
    return T.BertForMaskedLM(T.BertConfig(**BERT))


def bert_decoder():
    return T.BertLMHeadModel(T.BertConfig(**BERT, is_decoder=True))


def vit():
    return T.ViTForImageClassification(T.ViTConfig(**PICTURE))


def llava():
    vision = {"model_type": "clip_vision_model", **PICTURE, "projection_dim": 32}
    text = {"model_type": "llama", **TEXT}
    return T.LlavaForConditionalGeneration(T.LlavaConfig(vision_config=vision, text_config=text, image_token_id=250))


def gemma3():
    text = {**TEXT, "head_dim": 16, "sliding_window": 8}
    config = T.Gemma3Config(text_config=text, vision_config=PICTURE, mm_tokens_per_image=4, image_token_index=250)
    return T.Gemma3ForConditionalGeneration(config)


def mixtral():
    return T.MixtralForCausalLM(T.MixtralConfig(**TEXT, num_local_experts=2))


def neox():
    return T.GPTNeoXForCausalLM(T.GPTNeoXConfig(**BERT, max_position_embeddings=64))


def nemotron():
    mamba = {"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8}
    config = T.NemotronHConfig(**TEXT, head_dim=8, layers_block_type=["mamba", "attention"], **mamba)
    return T.NemotronHForCausalLM(config)


CAUSAL = (bert_decoder, llava, gemma3, mixtral, neox, nemotron, tiny_llama, tiny_gpt2)
NOT_CAUSAL = (bart, whisper, t5, bert, vit)
ALL = {build.__name__: build for build in (*CAUSAL, *NOT_CAUSAL)}


def save(name, folder):
    torch.manual_seed(0)
    model = ALL[name]().bfloat16()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model
