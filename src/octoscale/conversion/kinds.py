"""What the paper's plots call a linear layer, by its name: the projections of attention, and both ends of the FFN.

    kind_of("model.layers.0.self_attn.q_proj")        attn_qkv
    kind_of("transformer.h.0.mlp.c_proj")             ffn_out

Models name their layers as they like, and the same word (`wo`, `c_proj`, `value`, `dense`) means one thing in attention
and another in the FFN. So the part of the name that says where the layer stands decides first, then the layer's own
name. What an attention or a state-space mixer reads is `attn_qkv`, its gates included. `other` is for what is neither.
"""

import re

KINDS = ("attn_qkv", "attn_out", "ffn_in", "ffn_out", "other")

#: Under this name an adapter's wrapper keeps the layer that it wraps.
WRAPPED = ".base_layer"

#: Parts of a name that say what the layers below them are.
_IN_FFN = re.compile(
    r"(?!continuous_position|time_)\w*(mlp|ffn|feed_?forward|moe|expert|densereludense)\w*|ff\d*|ffw_layer_(start|end)",
    re.IGNORECASE,
)
_IN_ATTENTION = re.compile(
    r"\w*(attn|attention|mixer|mamba|mlstm|temporal_block|indexer|compressor|modulation)\w*|self|conv", re.IGNORECASE
)

#: Parts of a name below which nothing is either: routers of experts; and, right above, norms that make their gains.
_IN_NEITHER = re.compile(r"\w*router\w*|gate", re.IGNORECASE)
_IN_NORM = re.compile(r"\w*norm\w*", re.IGNORECASE)

#: Ends of names that mean the same wherever they stand.
_QKV = (
    r"[qkv]|[qkv]_(head|lin|proj)|linear_[qkv]|[wW][qkv]|\w*qkv\w*|project_[qkv]|to_(q|k|v|kv|key|value)|c_attn|q_attn"
    r"|in_proj\w*|wq_b|(q|k|v|kv)_[ab]_proj\w*|kv_proj|\w*query(_proj|_global|_key|_key_value)?"
    r"|((projection|layout)_)?(key|value)(_proj|_global)?|queries\w*|keys_values|att_proj"
)
_OUT = r"(o|out)_proj|o|wo|Wo|attention_out|temporal_dense|module\.projection"
_OUT_OF_ATTENTION = (
    r"(output|post)_proj|o_[ab]_proj|out_lin|to_out(\.\d)?|linear_out|projection(_layer|_out)?|final|post"
    r"|out_(text|vision)_proj|\w*output\.dense"
)
#: What else an attention or a mixer reads: gates, positions, weights of its heads, places to look at.
_GATES = r"receptance|linear_[xy]|v_proj_\w+|([abfgr]|gate|q_gate|[fg]_[ab])_proj|output_gate|[fio]gate_preact"
_POSITIONS = r"linear_pos|pos_proj|\w*relative_k_proj|relative_pos_embeddings|gru_rel_pos_linear|sampling_offsets"
_MORE = r"attention_weights|weights_proj|sink_proj|(values_)?(text|vision)_proj|projection_in"
_UP = (
    r"w_?[13]|v1|wi|wi_\d|Wi|c_fc|(linear_)?fc_?1(\.proj)?|fc_?in|(gate|up|gate_up)_proj|proj_up\w*|lin1|linear_?1"
    r"|linear_up|layer_1|ffw_layer_1|dense_?1|ffn|p(oint)?w(ise_)?conv1|intermediate_dense|input_linear|dense_h_to_4h"
    r"|intermediate|\w*intermediate\w*\.dense|(lang|visn)_inter\.dense|w_in\.w_\d|pre_expert_proj"
)
_DOWN = (
    r"w_?2|down_proj|proj_down|(linear_)?fc_?2|fc_?out|lin2|linear_?2|linear_down|layer_2|ffw_layer_2|dense_?2"
    r"|p(oint)?w(ise_)?conv2|ffn_output|output_dense|output_linear|dense_4h_to_h|\w*output\w*\.dense|w_out"
    r"|post_expert_proj"
)
#: Where the layer stands, ends of names, kind: the first row that matches counts.
_ROWS: tuple[tuple[re.Pattern[str] | None, str, str], ...] = (
    (_IN_FFN, rf"{_DOWN}|wo|Wo|c_proj|out_proj|proj_out|value|output|(ffn|mlp|ff)\.[1-9]", "ffn_out"),
    (_IN_FFN, rf"{_UP}|key|receptance|dense|in_proj|proj_in|(ffn|mlp|ff)\.0", "ffn_in"),
    (_IN_ATTENTION, rf"{_OUT}|c_proj|proj|dense|output|{_OUT_OF_ATTENTION}", "attn_out"),
    (_IN_ATTENTION, rf"{_QKV}|{_GATES}|{_POSITIONS}|{_MORE}", "attn_qkv"),
    (None, _QKV, "attn_qkv"),
    (None, _OUT, "attn_out"),
    (None, _UP, "ffn_in"),
    (None, _DOWN, "ffn_out"),
)


def kind_of(name: str) -> str:
    """The kind of a linear layer by its name; `other` if the name says nothing."""
    name = name.removesuffix(WRAPPED).removesuffix(".linear")
    place = _place_of(name)
    if place is _IN_NEITHER:
        return "other"
    for where, ends, kind in _ROWS:
        if where in (None, place) and re.search(rf"(^|\.)({ends})$", name):
            return kind
    return "other"


def _place_of(name: str) -> re.Pattern[str] | None:
    """Whether the nearest part of the name that says so means the FFN, attention or neither; None if none does."""
    parts = name.split(".")[:-1]
    if parts and _IN_NORM.fullmatch(parts[-1]):
        return _IN_NEITHER
    for part in reversed(parts):
        for place in (_IN_NEITHER, _IN_FFN, _IN_ATTENTION):
            if place.fullmatch(part):
                return place
    return None
