"""Models that have a size and random weights: the paper's, and two of ours. Numbers are data.

The paper's sizes also have the real checkpoints that it measured, on the hub: `checkpoint_of` has their names.
"""

from dataclasses import dataclass
from typing import Any, Literal

from octoscale.system.errors import UserError

Family = Literal["gpt", "llama"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model to be built with random weights; it has its family's usual vocabulary, unless it names one."""

    family: Family
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    d_ffn: int
    max_positions: int
    vocabulary: int | None = None


#: Name, family, d_model, layers, heads, key-value heads, d_ffn, positions: the paper's Table 1.
_TABLE_1: tuple[tuple[str, Family, int, int, int, int, int, int], ...] = (
    ("gpt-111m", "gpt", 768, 10, 12, 12, 3072, 2048),
    ("gpt-590m", "gpt", 1536, 18, 12, 12, 6144, 2048),
    ("gpt-1.3b", "gpt", 2048, 24, 16, 16, 8192, 2048),
    ("gpt-6.7b", "gpt", 4096, 32, 32, 32, 16384, 2048),
    ("gpt-13b", "gpt", 5120, 40, 40, 40, 20480, 2048),
    ("llama2-7b", "llama", 4096, 32, 32, 32, 11008, 4096),
    ("llama2-70b", "llama", 8192, 80, 64, 8, 28672, 4096),
)

PAPER_SIZES: dict[str, Size] = {
    name: Size(
        family=family,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        d_ffn=d_ffn,
        max_positions=max_positions,
    )
    for name, family, d_model, num_layers, num_heads, num_kv_heads, d_ffn, max_positions in _TABLE_1
}

#: The checkpoints that the paper measured, by the name of their size.
HUB_IDS = {
    "gpt-111m": "cerebras/Cerebras-GPT-111M",
    "gpt-590m": "cerebras/Cerebras-GPT-590M",
    "gpt-1.3b": "cerebras/Cerebras-GPT-1.3B",
    "gpt-6.7b": "cerebras/Cerebras-GPT-6.7B",
    "gpt-13b": "cerebras/Cerebras-GPT-13B",
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "llama2-70b": "meta-llama/Llama-2-70b-hf",
}

#: What the option of that name means.
PRETRAINED = "The paper's names, gpt-111m to llama2-70b, mean the real checkpoints on the hub."

_VOCABULARY: dict[Family, int] = {"gpt": 50257, "llama": 32000}

#: Ours: gpt-10m, as a GPT of the paper, of a size that learns bytes from scratch within minutes on a CPU; llama-1b, as
#: small Llamas of today are (grouped queries, 1.17B weights with embeddings), to measure speed on.
SIZES = PAPER_SIZES | {
    "gpt-10m": Size(
        family="gpt",
        d_model=320,
        num_layers=8,
        num_heads=5,
        num_kv_heads=5,
        d_ffn=1280,
        max_positions=1024,
        vocabulary=256,
    ),
    "llama-1b": Size(
        family="llama",
        d_model=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        d_ffn=5632,
        max_positions=4096,
        vocabulary=49152,
    ),
}

_OWN_SIZES = {"gpt-10m": "small enough to train on a CPU", "llama-1b": "a small Llama of today"}


def checkpoint_of(model: str) -> str:
    """The hub's id of the real checkpoint of a paper's size. UserError for any other model."""
    if model not in HUB_IDS:
        raise UserError(f"--pretrained is for {', '.join(HUB_IDS)}, not for {model}: leave it out")
    return HUB_IDS[model]


def paper_size(model: str) -> str | None:
    """The paper's size that a model has by its name, or by the hub's id of its checkpoint; None for any other."""
    return model if model in PAPER_SIZES else {place: size for size, place in HUB_IDS.items()}.get(model)


def config_of_size(size: str) -> Any:
    """The transformers config of one of `SIZES`. KeyError for an unknown one."""
    import transformers

    row = SIZES[size]
    vocabulary = row.vocabulary or _VOCABULARY[row.family]
    if row.family == "gpt":
        return transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=row.max_positions,
            n_embd=row.d_model,
            n_layer=row.num_layers,
            n_head=row.num_heads,
            n_inner=row.d_ffn,
            **({} if row.vocabulary is None else {"bos_token_id": None, "eos_token_id": None}),
        )
    return transformers.LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=row.max_positions,
        hidden_size=row.d_model,
        num_hidden_layers=row.num_layers,
        num_attention_heads=row.num_heads,
        num_key_value_heads=row.num_kv_heads,
        intermediate_size=row.d_ffn,
    )


def sizes_with_weights() -> list[dict[str, Any]]:
    """The sizes: name, weights in the decoder layers' linear layers, description."""
    rows = []
    for name, size in SIZES.items():
        shape = f"{size.num_layers} layers, d_model {size.d_model}, d_ffn {size.d_ffn}"
        source = "the paper's Table 1" if name in PAPER_SIZES else _OWN_SIZES[name]
        description = f"{shape}, {size.num_heads} heads; random weights ({source})"
        rows.append({"name": name, "linear_weights": _linear_weights(size), "description": description})
    return rows


def _linear_weights(row: Size) -> int:
    kv = row.d_model * row.num_kv_heads // row.num_heads
    ffn_products = 2 if row.family == "gpt" else 3
    return row.num_layers * row.d_model * (2 * row.d_model + 2 * kv + ffn_products * row.d_ffn)
