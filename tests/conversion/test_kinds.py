"""Kinds of linear layers by their names. Oracle: what the layer is in its family's code, by hand."""

import pytest

from octoscale.conversion.kinds import kind_of

#: Names of one family a line, in the order q/k/v, output of attention, FFN in, FFN out; "-" where it has none.
FAMILIES = {
    "llama": "model.layers.0.self_attn.q_proj model.layers.0.self_attn.o_proj model.layers.0.mlp.gate_proj model.layers.0.mlp.down_proj",  # noqa: E501
    "phi3": "model.layers.0.self_attn.qkv_proj model.layers.0.self_attn.o_proj model.layers.0.mlp.gate_up_proj model.layers.0.mlp.down_proj",  # noqa: E501
    "gpt2": "transformer.h.0.attn.c_attn transformer.h.0.attn.c_proj transformer.h.0.mlp.c_fc transformer.h.0.mlp.c_proj",  # noqa: E501
    "gpt_neo": "transformer.h.0.attn.attention.q_proj transformer.h.0.attn.attention.out_proj transformer.h.0.mlp.c_fc transformer.h.0.mlp.c_proj",  # noqa: E501
    "gpt_neox": "gpt_neox.layers.0.attention.query_key_value gpt_neox.layers.0.attention.dense gpt_neox.layers.0.mlp.dense_h_to_4h gpt_neox.layers.0.mlp.dense_4h_to_h",  # noqa: E501
    "gptj": "transformer.h.0.attn.q_proj transformer.h.0.attn.out_proj transformer.h.0.mlp.fc_in transformer.h.0.mlp.fc_out",  # noqa: E501
    "bloom": "transformer.h.0.self_attention.query_key_value transformer.h.0.self_attention.dense transformer.h.0.mlp.dense_h_to_4h transformer.h.0.mlp.dense_4h_to_h",  # noqa: E501
    "mpt": "transformer.blocks.0.attn.Wqkv transformer.blocks.0.attn.out_proj transformer.blocks.0.ffn.up_proj transformer.blocks.0.ffn.down_proj",  # noqa: E501
    "opt": "model.decoder.layers.0.self_attn.q_proj model.decoder.layers.0.self_attn.out_proj model.decoder.layers.0.fc1 model.decoder.layers.0.fc2",  # noqa: E501
    "ctrl": "transformer.h.0.multi_head_attention.Wq transformer.h.0.multi_head_attention.dense transformer.h.0.ffn.0 transformer.h.0.ffn.2",  # noqa: E501
    "xlnet": "- - transformer.layer.0.ff.layer_1 transformer.layer.0.ff.layer_2",
    "xlm": "transformer.attentions.0.q_lin transformer.attentions.0.out_lin transformer.ffns.0.lin1 transformer.ffns.0.lin2",  # noqa: E501
    "rwkv": "rwkv.blocks.0.attention.key rwkv.blocks.0.attention.output rwkv.blocks.0.feed_forward.key rwkv.blocks.0.feed_forward.value",  # noqa: E501
    "mamba": "backbone.layers.0.mixer.in_proj backbone.layers.0.mixer.out_proj - -",
    "bamba": "model.layers.0.mamba.in_proj model.layers.0.mamba.out_proj model.layers.0.feed_forward.gate_proj model.layers.0.feed_forward.down_proj",  # noqa: E501
    "recurrent_gemma": "model.layers.0.temporal_block.linear_x model.layers.0.temporal_block.linear_out model.layers.0.mlp_block.up_proj model.layers.0.mlp_block.down_proj",  # noqa: E501
    "nemotron_h": "model.layers.0.mixer.q_proj model.layers.0.mixer.o_proj model.layers.0.mixer.up_proj model.layers.0.mixer.down_proj",  # noqa: E501
    "deepseek_v3": "model.layers.0.self_attn.kv_a_proj_with_mqa model.layers.0.self_attn.o_proj model.layers.0.mlp.shared_experts.up_proj model.layers.0.mlp.shared_experts.down_proj",  # noqa: E501
    "deepseek q": "model.layers.0.self_attn.q_b_proj - - -",
    "qwen3_next": "model.layers.0.linear_attn.in_proj_qkvz model.layers.0.linear_attn.out_proj model.layers.0.mlp.shared_expert.gate_proj model.layers.0.mlp.shared_expert.down_proj",  # noqa: E501
    "qwen3_5": "model.layers.0.linear_attn.in_proj_ba model.layers.0.linear_attn.out_proj - -",
    "granite 4": "- - model.layers.0.shared_mlp.input_linear model.layers.0.shared_mlp.output_linear",
    "lfm2": "model.layers.0.conv.in_proj model.layers.0.conv.out_proj model.layers.0.feed_forward.w1 model.layers.0.feed_forward.w2",  # noqa: E501
    "bert": "bert.encoder.layer.0.attention.self.query bert.encoder.layer.0.attention.output.dense bert.encoder.layer.0.intermediate.dense bert.encoder.layer.0.output.dense",  # noqa: E501
    "blip-2": "q.layer.0.crossattention.attention.value q.layer.0.crossattention.output.dense q.layer.0.intermediate_query.dense q.layer.0.output_query.dense",  # noqa: E501
    "distilbert": "distilbert.transformer.layer.0.attention.q_lin distilbert.transformer.layer.0.attention.out_lin distilbert.transformer.layer.0.ffn.lin1 distilbert.transformer.layer.0.ffn.lin2",  # noqa: E501
    "modernbert": "model.layers.0.attn.Wqkv model.layers.0.attn.Wo model.layers.0.mlp.Wi model.layers.0.mlp.Wo",
    "roberta-prelayernorm": "- roberta_prelayernorm.encoder.layer.0.attention.output.dense roberta_prelayernorm.encoder.layer.0.intermediate.dense roberta_prelayernorm.encoder.layer.0.output.dense",  # noqa: E501
    "deberta-v2": "deberta.encoder.layer.0.attention.self.query_proj deberta.encoder.layer.0.attention.output.dense deberta.encoder.layer.0.intermediate.dense deberta.encoder.layer.0.output.dense",  # noqa: E501
    "mpnet": "mpnet.encoder.layer.0.attention.attn.q mpnet.encoder.layer.0.attention.attn.o mpnet.encoder.layer.0.intermediate.dense mpnet.encoder.layer.0.output.dense",  # noqa: E501
    "albert": "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense albert.encoder.albert_layer_groups.0.albert_layers.0.ffn albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output",  # noqa: E501
    "longformer": "longformer.encoder.layer.0.attention.self.query_global longformer.encoder.layer.0.attention.output.dense longformer.encoder.layer.0.intermediate.dense longformer.encoder.layer.0.output.dense",  # noqa: E501
    "funnel": "funnel.encoder.blocks.0.0.attention.q_head funnel.encoder.blocks.0.0.attention.post_proj funnel.encoder.blocks.0.0.ffn.linear_1 funnel.encoder.blocks.0.0.ffn.linear_2",  # noqa: E501
    "reformer": "reformer.encoder.layers.0.attention.self_attention.query_key - reformer.encoder.layers.0.feed_forward.dense.dense reformer.encoder.layers.0.feed_forward.output.dense",  # noqa: E501
    "t5": "decoder.block.0.layer.1.EncDecAttention.k decoder.block.0.layer.1.EncDecAttention.o decoder.block.0.layer.2.DenseReluDense.wi_0 decoder.block.0.layer.2.DenseReluDense.wo",  # noqa: E501
    "switch": "encoder.block.1.layer.0.SelfAttention.q encoder.block.1.layer.0.SelfAttention.o encoder.block.1.layer.1.mlp.wi encoder.block.1.layer.1.mlp.wo",  # noqa: E501
    "switch experts": "- - encoder.block.1.layer.1.mlp.experts.expert_0.wi encoder.block.1.layer.1.mlp.experts.expert_0.wo",  # noqa: E501
    "bart": "model.decoder.layers.0.encoder_attn.k_proj model.decoder.layers.0.encoder_attn.out_proj model.decoder.layers.0.fc1 model.decoder.layers.0.fc2",  # noqa: E501
    "prophetnet": "prophetnet.decoder.layers.0.cross_attn.query_proj prophetnet.decoder.layers.0.cross_attn.out_proj prophetnet.decoder.layers.0.feed_forward.intermediate prophetnet.decoder.layers.0.feed_forward.output",  # noqa: E501
    "wav2vec2": "wav2vec2.encoder.layers.0.attention.q_proj wav2vec2.encoder.layers.0.attention.out_proj wav2vec2.encoder.layers.0.feed_forward.intermediate_dense wav2vec2.encoder.layers.0.feed_forward.output_dense",  # noqa: E501
    "vit": "vit.layers.0.attention.q_proj vit.layers.0.attention.o_proj vit.layers.0.mlp.fc1 vit.layers.0.mlp.fc2",
    "swin": "swin.encoder.layers.0.blocks.0.attention.self.query swin.encoder.layers.0.blocks.0.attention.output.dense swin.encoder.layers.0.blocks.0.intermediate.dense swin.encoder.layers.0.blocks.0.output.dense",  # noqa: E501
    "xlstm": "backbone.blocks.0.mlstm_layer.q backbone.blocks.0.mlstm_layer.out_proj backbone.blocks.0.ffn.proj_up_gate backbone.blocks.0.ffn.proj_down",  # noqa: E501
    "moshi": "model.layers.0.self_attn.q_proj.linear model.layers.0.self_attn.o_proj.linear model.layers.0.mlp.fc1 model.layers.0.mlp.fc2",  # noqa: E501
    "internvl": "- vision.encoder.layer.0.attention.projection_layer - -",
    "blip": "vision_model.encoder.layers.0.self_attn.qkv vision_model.encoder.layers.0.self_attn.projection - -",
    "bark": "layers.0.attn.att_proj layers.0.attn.out_proj layers.0.mlp.in_proj layers.0.mlp.out_proj",
    "conformer": "encoder.layers.0.self_attn.linear_q encoder.layers.0.self_attn.linear_out encoder.layers.0.feed_forward1.linear1 encoder.layers.0.feed_forward1.linear2",  # noqa: E501
    "positions": "encoder.layers.0.self_attn.relative_k_proj - - -",
    "deformable": "decoder.layers.0.encoder_attn.sampling_offsets decoder.layers.0.encoder_attn.output_proj decoder.layers.0.mlp.fc1 decoder.layers.0.mlp.fc2",  # noqa: E501
    "gemma3n audio": "conformer.0.attention.attn.q_proj conformer.0.attention.post conformer.0.ffw_layer_start.ffw_layer_1 conformer.0.ffw_layer_end.ffw_layer_2",  # noqa: E501
    "gemma4 audio": "layers.0.self_attn.q_proj.linear layers.0.self_attn.post.linear layers.0.feed_forward1.ffw_layer_1.linear layers.0.feed_forward2.ffw_layer_2.linear",  # noqa: E501
    "qwen-vl vision": "visual.blocks.0.attn.qkv visual.blocks.0.attn.proj visual.blocks.0.mlp.linear_fc1 visual.blocks.0.mlp.linear_fc2",  # noqa: E501
    "qwen-omni": "blocks.0.attn.to_q blocks.0.attn.to_out.0 blocks.0.ff.ff.0 blocks.0.ff.ff.3",
    "sam": "vision_encoder.layers.0.attn.qkv vision_encoder.layers.0.attn.proj blocks.0.mlp.proj_in blocks.0.mlp.proj_out",  # noqa: E501
    "convnext": "- - convnext.encoder.stages.0.layers.0.pwconv1 convnext.encoder.stages.0.layers.0.pwconv2",
    "cvt": "layers.0.attention.attention.projection_key layers.0.attention.output.dense layers.0.intermediate.dense layers.0.output.dense",  # noqa: E501
    "focalnet": "layers.0.modulation.projection_in layers.0.modulation.projection_out layers.0.mlp.fc1 layers.0.mlp.fc2",  # noqa: E501
    "swiftformer": "blocks.0.attn.to_key blocks.0.attn.final - -",
    "levit": "stages.0.layers.0.module.queries_keys_values.linear stages.0.layers.0.module.projection.linear layers.1.module.linear_up.linear layers.1.module.linear_down.linear",  # noqa: E501
    "lxmert": "r_layers.0.attention.self.key r_layers.0.attention.output.dense x_layers.0.visn_inter.dense x_layers.0.visn_output.dense",  # noqa: E501
    "lilt": "layer.0.attention.self.layout_key layer.0.attention.layout_output.dense layer.0.layout_intermediate.dense layer.0.layout_output.dense",  # noqa: E501
    "patchtst": "layers.0.self_attn.q_proj layers.0.self_attn.out_proj layers.0.ff.0 layers.0.ff.3",
    "xlstm gates": "blocks.0.mlstm_layer.igate_preact - - -",
    "indexer": "model.layers.0.self_attn.indexer.weights_proj - - -",
    "peft": "model.layers.0.self_attn.q_proj.base_layer model.layers.0.self_attn.o_proj.base_layer model.layers.0.mlp.up_proj.base_layer model.layers.0.mlp.down_proj.base_layer",  # noqa: E501
}  # fmt: skip
NOTHING = (
    "backbone.layers.0.mixer.x_proj bert.pooler lm_head layers.0.per_layer_projection layers.0.mlp.router proj_out "
    "model.layers.0.mlp.gate model.layers.0.mlp.router.gate model.layers.0.mlp.gate.router_mlp.fc1 mlp.gate.down_proj "
    "layers.0.ada_rms_norm.linear1 layers.0.attn_norm.linear layers.0.altup.prediction_coefs "
    "layers.0.laurel.linear_left layers.0.attention.self.continuous_position_bias_mlp.0 time_embed.time_mlp.2 "
    "encoder.layers.0.downsample.reduction"
)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_kinds_of_a_family(family):
    names = FAMILIES[family].split()
    kinds = [None if name == "-" else kind_of(name) for name in names]
    expected = ["attn_qkv", "attn_out", "ffn_in", "ffn_out"]
    assert kinds == [None if name == "-" else kind for name, kind in zip(names, expected, strict=True)]


@pytest.mark.parametrize("name", NOTHING.split())
def test_what_is_neither_attention_nor_ffn_is_other(name):
    assert kind_of(name) == "other"
