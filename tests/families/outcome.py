"""What becomes of a check: it holds, octoscale refuses in one line, or transformers' own model does not do it.

Each line of the lists was looked at: a refusal is a true limit, and a limit of transformers' own fails in high
precision too. KNOWN is what was seen failing and is to be mended or explained; it should become empty.
"""

LAYERS = ("convert", "forward", "backward", "revert")
FILES = ("load", "save", "quantize")


class OwnLimit(Exception):
    """The model in high precision, without octoscale, does not do what the check is about."""


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


#: Models without a plain linear layer but their head: convolutions, or a library's own quantized layers.
_NOTHING = ("encoder-ibert", "encoder-squeezebert", "vision-poolformer", "vision-resnet")

#: Models that see later tokens too: XLM as it is by default, XLNet's permutations, prompts as a whole.
_SEES_ALL = ("causal-cpmant", "causal-xlm", "causal-xlnet", "encoder-neomme")

#: Encoder-decoders, of which transformers makes no classifier.
_TRANSLATES = (
    *(f"encoder-decoder-{name}" for name in ("blenderbot", "blenderbot-small", "encoder-decoder", "fsmt")),
    *(f"encoder-decoder-{name}" for name in ("led", "longt5", "m2m_100", "marian", "nllb-moe", "pegasus")),
    *(f"encoder-decoder-{name}" for name in ("pegasus_x", "prophetnet", "seamless_m4t", "seamless_m4t_v2")),
    "encoder-decoder-switch_transformers",
    "seeing-vision-encoder-decoder",
)

#: Models that do not take a text without a picture, and their words for it.
_WANTS_PICTURES = {
    **dict.fromkeys(("blip", "blip-2", "instructblip", "kosmos-2"), "pixel_values"),
    "git": "Expected input batch_size (0)",
}

#: Models whose layers share their weights.
_SHARED = ("causal-zamba", "causal-zamba2")

#: Family and check -> words of the line that octoscale answers with.
REFUSED: dict[tuple[str, str], str] = {
    **{(family, check): "nothing to convert" for family in _NOTHING for check in (*LAYERS, *FILES)},
    **{(family, "train"): "nothing to convert" for family in _NOTHING[:2]},
    # transformers ties such weights after reading, and no scale: skip="shared_trans*" quantizes the rest
    **{(family, check): "shares its weight with another" for family in _SHARED for check in FILES},
    **{(family, "train"): "does not predict the next token" for family in (*_SEES_ALL, *_TRANSLATES)},
    **{(f"seeing-{name}", "train"): words for name, words in _WANTS_PICTURES.items()},
    # under autocast, their own code meets float32
    **{(family, "train"): "with --dtype fp32" for family in ("causal-dbrx", "causal-xmod", "encoder-xmod")},
    ("encoder-esmc", "train"): "the tokenizer is another model's",  # it has 64 letters, the sweep's tokenizer bytes
}

#: Family -> what its cached generation does in high precision.
_GENERATION = {
    "causal-blt": "num_hidden_layers",  # transformers' cache asks its config for what it does not have
    "causal-cpmant": "logits off",  # positions of its prompt differ
    "causal-prophetnet": "logits off",  # so do its n-gram positions
    "causal-rwkv": "logits off",  # its states differ
}

#: Family and check -> words of what transformers' own does.
OWN_LIMITS: dict[tuple[str, str], str] = {
    **{(family, check): words for family, words in _GENERATION.items() for check in ("generate", "fuse")},
    ("encoder-decoder-prophetnet", "generate"): "logits off",
    # its hashes are drawn from torch.seed(), which no seed sets
    **{(f"{kind}-reformer", "train"): "the same training twice differs" for kind in ("causal", "encoder")},
    ("seeing-paligemma", "generate"): "logits off",  # a picture's tokens see each other in the first pass alone
}

#: Family and check -> what fails, and is to be mended or explained.
KNOWN: dict[tuple[str, str], str] = {}
