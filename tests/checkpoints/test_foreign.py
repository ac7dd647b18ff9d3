"""Foreign FP8 checkpoints run as they are. Oracle: tests/support/foreign.py, by hand, in float32 and float64."""

import json
import re
import sys

import pytest
import torch
from checkpoints import save_tiny_llama
from foreign import BLOCKS, CHANNEL, GROUPS, KINDS, TOKENS, compressed, group, means, save_foreign
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import octoscale
from octoscale.checkpoints.settings import Quantization
from octoscale.checkpoints.takeover import give_back, take_over
from octoscale.layers.state import NonFiniteError
from octoscale.layers.stored import StoredLinear
from octoscale.models.export import run_quantization
from octoscale.models.loading import ModelError
from octoscale.system.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own
IDS = torch.arange(1, 40)[None]


def layers(model) -> dict[str, StoredLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, StoredLinear)}


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_its_decoded_weights_give_under_the_same_casts(kind, tmp_path):
    """Layer by layer on the oracle's own inputs: float32 sums in another order. Of logits, casts may differ near a tie.

    A scale with a factor rounds each sum of up to 160 products once more; both sum about 160 float32 numbers, whose
    magnitudes are below 1: 160 * 2**-24 is 1e-5.
    """
    model = octoscale.load(str(save_foreign(tmp_path / "f", kind)), torch.float32).model
    oracle = means(tmp_path / "f", kind)
    found = layers(model)
    assert len(found) == (13 if kind == "several groups" else 14)
    seen = {}
    for name in found:
        module = oracle.get_submodule(name)
        first = next(iter(module._forward_pre_hooks), None)
        module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        if first is not None:  # look before the cast
            module._forward_pre_hooks.move_to_end(first)
        module.register_forward_hook(lambda _, args, y, name=name: seen.update({name: (seen[name], y)}))
    expected = logits(oracle)
    with torch.no_grad():
        for name, layer in found.items():
            x, y = seen[name]
            torch.testing.assert_close(layer(x), y, rtol=1e-5, atol=1e-5)
    assert (logits(model) - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_stay_codes_and_are_saved_and_read_again(kind, tmp_path):
    model = octoscale.load(str(save_foreign(tmp_path / "f", kind))).model
    expected, own = logits(model), load_file(tmp_path / "f" / "model.safetensors")
    for name, layer in layers(model).items():
        assert layer.weight.dtype == torch.float8_e4m3fn
        assert torch.equal(layer.weight.view(torch.uint8), own[f"{name}.weight"].view(torch.uint8))
    model.save_pretrained(tmp_path / "again")
    again = octoscale.load(str(tmp_path / "again")).model
    assert layers(again).keys() == layers(model).keys()
    assert torch.equal(logits(again), expected)
    again.save_pretrained(tmp_path / "twice")
    one, other = (tmp_path / each / "model.safetensors" for each in ("again", "twice"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("kind", ["FP8_DYNAMIC", "FP8_BLOCK", "static", "blocks of fp8"])
def test_memory_is_a_byte_a_weight_and_the_scales(kind, tmp_path):
    """Oracle: by count; a scale is float32 in memory."""
    model = octoscale.load(str(save_foreign(tmp_path / "f", kind))).model
    for layer in layers(model).values():
        n, k = layer.weight.shape
        blocks = -(-n // 128) * -(-k // 128)
        scales = {"FP8_DYNAMIC": n, "FP8_BLOCK": blocks, "static": 2, "blocks of fp8": blocks}[kind]
        assert sum(p.numel() * p.element_size() for p in layer.parameters()) == n * k + 4 * scales


def test_validate_generate_and_inspect_take_it(tmp_path, run):
    folder = save_foreign(tmp_path / "f", "several groups")
    code, out, _ = run("inspect", folder, "--run")
    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert rows["model.layers.0.self_attn.q_proj"] == "FP8 weight row [160, 1] input amax:row factors"
    assert rows["model.layers.1.mlp.down_proj"] == "FP8 weight block [2, 3] input amax:block factors"
    assert rows["model.layers.0.mlp.up_proj"] == "FP8 weight tensor [1] input as they are factors"
    assert rows["model.layers.1.self_attn.o_proj"] == "kept BF16 in the files"
    assert "dynamic inputs have scales that are powers of two here" in out
    assert "13 of 13 FP8 layers ran" in out
    told = json.loads(run("inspect", folder, "--json")[1])
    assert [row["state"] for row in told["modules"]].count("FP8") == 13
    code, out, _ = run("generate", folder, "--prompt", "abc", "--max-new-tokens", "3", "--json")
    assert code == 0
    assert json.loads(out)["new_tokens"] == 3
    assert "self_attn.o_proj is not loaded in FP8" in json.loads(out)["fusion"]
    words = ("--tokens", "64", "--window", "32", "--text", "pydoc", "--out", tmp_path / "run")
    assert run("validate", folder, *words)[0] == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["perplexity"]["stored"] > 1
    code, _, err = run("inspect", folder, "--scaling", "amax:row")
    assert code == 2
    assert "holds FP8 weights with their scales: inspect it without other options" in err


def test_powers_of_two_are_said(tmp_path, run):
    save_tiny_llama(tmp_path / "model")
    run_quantization(Quantization(model=str(tmp_path / "model"), granularity="row"), tmp_path / "out")
    out = run("inspect", tmp_path / "out")[1]
    assert out.count("powers of two\n") == 14
    assert "factors" not in out


def test_gradients_reach_the_input(tmp_path):
    """Oracle: the gradient by the decoded weights, within the rounding of a gradient to e5m2, 2**-3 of it."""
    for kind in ("FP8_DYNAMIC", "FP8_BLOCK"):
        model = octoscale.load(str(save_foreign(tmp_path / kind, kind)), torch.float32).model
        for name, layer in list(layers(model).items())[:7]:
            x = torch.randn(3, layer.weight.shape[1], generator=torch.Generator().manual_seed(1)).requires_grad_()
            grad = torch.randn(3, layer.weight.shape[0], generator=torch.Generator().manual_seed(2))
            layer(x).backward(grad)
            expected = grad @ layer.weight_values(layer.quantized_weight())
            assert (x.grad - expected).norm() < 2**-3 * expected.norm(), name


#: What is wrong -> what is done to the tensors, or to the config, and the words of the refusal.
WRONG = {
    "no scale": ({"weight_scale": None}, {}, "no weight_scale or weight_scale_inv beside it"),
    "scale of another shape": ({"weight_scale": torch.ones(3, 1)}, {}, r"has shape \[3, 1\]: by config.json it is one"),
    "one scale": ({"weight_scale": torch.ones(1)}, {}, r"a tensor of shape \[160, 1\]"),
    "a scale of 0": (
        {"weight_scale": torch.zeros(160, 1)},
        {},
        r"q_proj.weight_scale\[0, 0\] is 0.0: a scale is a pos",
    ),
    "a scale of NaN": (
        {"weight_scale": torch.full((160, 1), float("nan"))},
        {},
        r"weight_scale\[0, 0\] is nan: a scale",
    ),
    "integers": ({"weight": torch.zeros(160, 160, dtype=torch.int8)}, {}, "q_proj.weight is I8"),
    "another format": ({"weight": torch.zeros(160, 160, dtype=torch.float8_e5m2)}, {}, "are read in F8_E4M3 only"),
    "ignored": (
        {},
        compressed(group(CHANNEL, TOKENS), ignore=(r"re:.*q_proj",)),
        r"q_proj.weight is in FP8, and by the quantization_config of config.json keeps it in high precision \(re:",
    ),
    "in no group": (
        {},
        compressed(group(CHANNEL, TOKENS, (r"re:.*mlp.*",))),
        "_proj.weight is in FP8, and by the quantization_config of config.json no group of it names this layer",
    ),
    "two scales": ({"weight_scale_inv": torch.ones(160, 1)}, {}, "weight_scale and weight_scale_inv beside it: which"),
    "a zero point": (
        {"weight_zero_point": torch.full((160, 1), 3, dtype=torch.int8)},
        {},
        "q_proj.weight_zero_point is not zero, and asymmetric codes are not served here: here, weights are e4m3fn",
    ),
    "a scale of inputs before theirs": ({"pre_quant_scale": torch.ones(160)}, {}, "q_proj.pre_quant_scale stands bes"),
    "a scale of scales": ({"weight_scale_2": torch.ones(1)}, {}, "q_proj.weight_scale_2 stands beside codes in FP8"),
    "blocks are said": (
        {},
        compressed(group(BLOCKS, GROUPS)),
        r"weight_scale has shape \[160, 1\]: by config.json it is",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_together_is_named(name, tmp_path):
    changes, content, words = WRONG[name]
    folder = save_foreign(tmp_path / "f", "FP8_DYNAMIC")
    tensors = load_file(folder / "model.safetensors")
    for leaf, tensor in changes.items():
        key = f"model.layers.0.self_attn.q_proj.{leaf}"
        tensors = {**tensors, key: tensor} if tensor is not None else {k: t for k, t in tensors.items() if k != key}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if content:
        edit(folder, quantization_config=content)
    with pytest.raises(ModelError, match=words):
        octoscale.load(str(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float8_e4m3fn])
def test_zero_points_of_zero_change_nothing(dtype, tmp_path):
    folder = save_foreign(tmp_path / "f", "FP8_DYNAMIC")
    expected, tensors = logits(octoscale.load(str(folder)).model), load_file(folder / "model.safetensors")
    tensors |= {
        f"{name.removesuffix('.weight_scale')}.weight_zero_point": torch.zeros_like(scale).to(dtype)
        for name, scale in tensors.items()
        if name.endswith(".weight_scale")
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits(octoscale.load(str(folder)).model), expected)


def with_code(folder, module, code):
    """The folder with one code of a weight changed."""
    tensors = load_file(folder / "model.safetensors")
    codes = tensors[f"{module}.weight"].view(torch.uint8).clone()
    codes[3, 4] = code
    tensors[f"{module}.weight"] = codes.view(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("code", [0x7F, 0xFF])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"])
def test_a_code_that_is_nan_is_named(module, kind, code, tmp_path):
    """The last layer's makes logits NaN, and argmax would take the first token; another's is the next one's input."""
    model = octoscale.load(str(with_code(save_foreign(tmp_path / "f", kind), module, code))).model
    with pytest.raises(NonFiniteError, match=re.escape(f"{module}.weight holds NaN: the checkpoint is damaged")):
        logits(model)


def test_codes_are_looked_at_again_once_they_were_written_to(tmp_path):
    model = octoscale.load(str(save_foreign(tmp_path / "f", "FP8_DYNAMIC"))).model
    expected, layer = logits(model), model.model.layers[1].mlp.down_proj
    before = layer.weight.detach().clone()
    layer.weight.view(torch.uint8)[3, 4] = 0x7F
    with pytest.raises(NonFiniteError, match=r"down_proj\.weight holds NaN"):
        logits(model)
    layer.weight.copy_(before)
    assert torch.equal(logits(model), expected)
    layer.weight.data.view(torch.uint8)[3, 4] = 0x7F  # which leaves no trace
    octoscale.forget_casts(model)
    with pytest.raises(NonFiniteError, match=r"down_proj\.weight holds NaN"):
        logits(model)


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 256, "intermediate_size": 384}], ids=["usual", "fused"])
def test_commands_name_a_code_that_is_nan(sizes, tmp_path, run):
    module = "model.layers.1.mlp.down_proj"
    folder = with_code(save_foreign(tmp_path / "f", "FP8_DYNAMIC", **sizes), module, 0x7F)
    words = ("--tokens", "64", "--window", "32", "--text", "pydoc", "--out", tmp_path / "run")
    commands = [("generate", folder, "--prompt", "abc", "--max-new-tokens", "3"), ("inspect", folder, "--run")]
    for command in (*commands, ("validate", folder, *words)):
        code, out, err = run(*command)
        assert code == 2
        assert f"{module}.weight holds NaN: the checkpoint is damaged" in f"{out} {err}"


def test_scales_that_are_finer_than_a_tensor_are_of_one_rank(tmp_path):
    from octoscale.distributed.held_parts import _hold

    model = octoscale.load(str(save_foreign(tmp_path / "f", "FP8_BLOCK"))).model
    with pytest.raises(UserError, match=re.escape("layers.0.mlp.up_proj on many ranks takes one scale a tensor")):
        _hold(model, "model.layers.0.mlp.up_proj", "column", None)


@pytest.mark.parametrize("granularity", ["row", "block"])
@pytest.mark.parametrize("activations", ["dynamic", "none"])
def test_quantize_writes_what_the_converted_model_computes(activations, granularity, tmp_path):
    """Oracle: Fp8Linear under the same scaling, bit for bit; of weights only, compressed-tensors' reading."""
    source = save_tiny_llama(tmp_path / "model", hidden_size=160, intermediate_size=288)
    words = {"granularity": granularity, "activations": activations}
    run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    found = octoscale.load(str(tmp_path / "out")).model
    model = octoscale.load(str(source)).model
    if activations == "dynamic":
        octoscale.convert(model, octoscale.parse_scaling(f"amax:{granularity}"))
        assert torch.equal(logits(found), logits(model))
        return
    shapes = {name: tuple(layer.weight_scale.shape) for name, layer in layers(found).items()}
    assert shapes["model.layers.0.mlp.down_proj"] == ((160, 1) if granularity == "row" else (2, 3))
    name = "model.layers.0.mlp.down_proj"
    cast = octoscale.quantize(
        model.get_parameter(f"{name}.weight"),
        "e4m3fn",
        octoscale.Amax(granularity=granularity),
        granularity=layers(found)[name].fp8.weight_granularity,
    )
    assert torch.equal(layers(found)[name].original().weight, cast.dequantize(torch.bfloat16))


def test_rows_may_go_with_static_inputs(tmp_path):
    """Oracle: by hand, the output of a layer whose input is cast by the file's scale."""
    source = save_tiny_llama(tmp_path / "model")
    words = {"granularity": "row", "activations": "static", "window": 16, "tokens": 64}
    run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    layer = octoscale.load(str(tmp_path / "out"), torch.float32).model.model.layers[0].mlp.up_proj
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 4
    scale = float(layer.input_scale)
    values = (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).double() * scale
    assert layer.weight_scale.shape == (64, 1)
    expected = values @ (layer.weight.double() * layer.weight_scale.double()).t()
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["hf-fp8", "vllm-fp8"])
def test_blocks_are_read_by_transformers_as_by_us(layout, tmp_path):
    """Oracle: transformers' own decoding of fp8 to bfloat16. It takes sizes that are multiples of a block."""
    source = save_tiny_llama(tmp_path / "model", hidden_size=128, intermediate_size=256)
    words = {"granularity": "block", "layout": layout, "skip": ["k_proj", "v_proj"]}
    run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    ours = octoscale.load(str(tmp_path / "out")).model
    found = layers(ours)
    assert len(found) == 10
    octoscale.revert(ours)
    give_back()
    try:
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    finally:
        if "octoscale.checkpoints.hf" in sys.modules:  # another file of this process asked for it
            take_over()
    assert not layers(theirs)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for name, tensor in theirs.named_parameters():
        assert torch.equal(tensor, ours.get_parameter(name)), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"granularity": "row", "layout": "hf-fp8"}, "the layout hf-fp8 has no form for one scale a row"),
        ({"granularity": "row", "scaling": "cscale:1"}, "--granularity row is of scales by amax"),
        ({"granularity": "row", "scaling": "amax:block"}, "--granularity row is of scales by amax"),
        (
            {"scaling": "amax:row", "activations": "static", "window": 16, "tokens": 64},
            "a static scale of an activation",
        ),
        ({"granularity": "mx"}, "unknown granularity 'mx'"),
        ({"scaling": "amax:mx"}, "no checkpoint has scales of granularity mx"),
        ({"granularity": "row", "tie_fused": True}, "--tie-fused is for one scale a tensor"),
        ({"granularity": "block", "activations": "static"}, "weights by block go with dynamic inputs"),
        (
            {"granularity": "block", "layout": "hf-fp8"},
            "layers.0.self_attn.q_proj.weight is 32 x 32, and hf-fp8 wants whole blocks of 128 x 128: vLLM refuses",
        ),
        ({"granularity": "block", "layout": "vllm-fp8"}, "and vllm-fp8 wants whole blocks of 128 x 128"),
    ],
)
def test_words_that_do_not_go_together(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_quantization(Quantization(model=str(save_tiny_llama(tmp_path / "model")), **words), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_blocks_that_are_not_whole_are_told_where_a_reader_refuses_them(tmp_path):
    """compressed-tensors and octoscale read them; transformers' own fp8 would decode some wrongly."""
    words = {"granularity": "block", "scaling": "amax"}
    sizes = {"hidden_size": 160, "intermediate_size": 256}
    done = run_quantization(
        Quantization(model=str(save_tiny_llama(tmp_path / "model", **sizes)), **words), tmp_path / "out"
    )
    first = "model.layers.0.self_attn.q_proj"
    assert done["blocks_that_are_not_whole"] == f"14 layers, the first {first}: vLLM refuses them"
    whole = save_tiny_llama(tmp_path / "whole", hidden_size=128, intermediate_size=256)
    skip = {"skip": ["k_proj", "v_proj"]}
    assert "blocks_that_are_not_whole" not in run_quantization(
        Quantization(model=str(whole), **words, **skip), tmp_path / "whole-out"
    )
    config = octoscale.OctoscaleConfig("amax:block", layout="hf-fp8")
    with pytest.raises(UserError, match="wants whole blocks"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "model", quantization_config=config)


def test_the_shapes_of_two_scales_may_differ(tmp_path):
    """Each is one number."""
    folder = save_foreign(tmp_path / "f", "static")
    expected = logits(octoscale.load(str(folder)).model)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.view(()) if name.endswith("weight_scale") else tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits(octoscale.load(str(folder)).model), expected)


def test_codes_are_no_embedding(tmp_path):
    """A head in FP8 that a file ties to the embedding would leave codes there, without their scale."""
    folder = save_foreign(tmp_path / "f", "FP8_DYNAMIC")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    head = octoscale.quantize(tensors["lm_head.weight"].float(), "e4m3fn", octoscale.Amax())
    tensors |= {"lm_head.weight": head.codes, "lm_head.weight_scale": torch.ones(len(head.codes), 1).bfloat16()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit(folder, tie_word_embeddings=True, quantization_config={**content, "ignore": []})
    with pytest.raises((ModelError, UserError), match="embed_tokens shares its weight with another layer, and has no"):
        octoscale.load(str(folder))
