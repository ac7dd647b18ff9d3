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
_IN_FFN = re.compile(r"\w*(mlp|ffn|feed_?forward|moe|expert|densereludense)\w*|ff\d*", re.IGNORECASE)
_IN_ATTENTION = re.compile(
    r"\w*(attn|attention|mixer|mamba|mlstm|temporal_block|indexer|compressor)\w*|self|conv", re.IGNORECASE
)

#: Ends of names that mean the same wherever they stand.
_QKV = (
    r"[qkv]|[qkv]_(head|lin|proj)|[wW][qkv]|\w*qkv\w*|project_[qkv]|to_(q|k|v|kv)|c_attn|q_attn|in_proj\w*|wq_b"
    r"|(q|k|v|kv)_[ab]_proj\w*|kv_proj|\w*query(_proj|_global|_key|_key_value)?|(key|value)(_proj|_global)?"
)
_OUT = r"(o|out)_proj|o|wo|Wo|attention_out"
_OUT_OF_ATTENTION = r"(output|post)_proj|o_[ab]_proj|out_lin|to_out|linear_out"
_GATES = r"receptance|linear_[xy]|v_proj_\w+|([abfgr]|gate|q_gate|[fg]_[ab])_proj|output_gate"
_UP = (
    r"w_?[13]|v1|wi|wi_\d|Wi|c_fc|fc_?1|fc_?in|(gate|up|gate_up)_proj|proj_up\w*|lin1|linear_?1|layer_1|dense_?1|ffn"
    r"|intermediate_dense|input_linear|dense_h_to_4h|intermediate|intermediate\w*\.dense|w_in\.w_\d"
)
_DOWN = (
    r"w_?2|down_proj|proj_down|fc_?2|fc_?out|lin2|linear_?2|layer_2|dense_?2|ffn_output|output_dense|output_linear"
    r"|dense_4h_to_h|output\w*\.dense|w_out"
)
#: Where the layer stands, ends of names, kind: the first row that matches counts.
_ROWS: tuple[tuple[re.Pattern[str] | None, str, str], ...] = (
    (_IN_FFN, rf"{_DOWN}|wo|Wo|c_proj|out_proj|value|output|ffn\.2", "ffn_out"),
    (_IN_FFN, rf"{_UP}|key|receptance|dense|ffn\.0", "ffn_in"),
    (_IN_ATTENTION, rf"{_OUT}|c_proj|proj|dense|output|output\.dense|{_OUT_OF_ATTENTION}", "attn_out"),
    (_IN_ATTENTION, rf"{_QKV}|{_GATES}", "attn_qkv"),
    (None, _QKV, "attn_qkv"),
    (None, _OUT, "attn_out"),
    (None, _UP, "ffn_in"),
    (None, _DOWN, "ffn_out"),
)


def kind_of(name: str) -> str:
    """The kind of a linear layer by its name; `other` if the name says nothing."""
    name = name.removesuffix(WRAPPED).removesuffix(".linear")
    place = _place_of(name)
    for where, ends, kind in _ROWS:
        if where in (None, place) and re.search(rf"(^|\.)({ends})$", name):
            return kind
    return "other"


def _place_of(name: str) -> re.Pattern[str] | None:
    """Whether the nearest part of the name that says so means the FFN or attention; None if none does."""
    for part in reversed(name.split(".")[:-1]):
        for place in (_IN_FFN, _IN_ATTENTION):
            if place.fullmatch(part):
                return place
    return None
