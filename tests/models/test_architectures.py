"""Which class a folder is, and whether all of it is there. Oracles: transformers' own model; the tensors taken out."""

import json
import shutil
import sys

import octoscale.hf
import pytest
import torch
import transformers as T
from architectures import ALL, BERT, CAUSAL, NOT_CAUSAL, save
from checkpoints import byte_tokenizer, save_tiny_llama
from models import tiny_gpt2, tiny_llama
from safetensors.torch import load_file, save_file

from octoscale.checkpoints.settings import Quantization
from octoscale.models.architectures import predicts_tokens
from octoscale.models.export import run_quantization
from octoscale.models.loading import ModelError, is_stored, skeleton

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ALL)
def test_the_class_is_the_one_that_was_saved(name, tmp_path):
    """Oracle: the model that was saved: class, names, values."""
    model = save(name, tmp_path)
    loaded = octoscale.load(str(tmp_path)).model
    assert type(loaded) is type(skeleton(str(tmp_path))) is type(model)
    own = model.state_dict()
    assert loaded.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())
    assert predicts_tokens(loaded) == (ALL[name] in CAUSAL)


@pytest.mark.parametrize("name", ALL)
def test_quantize_and_load_go_through_the_models_own_names(name, tmp_path):
    """Oracle: the same model quantized while transformers loads it; both give the same codes and scales."""
    model = save(name, tmp_path / "a")
    done = run_quantization(Quantization(model=str(tmp_path / "a")), tmp_path / "b")
    config = octoscale.hf.OctoscaleConfig("amax")
    expected = type(model).from_pretrained(tmp_path / "a", quantization_config=config)
    expected.save_pretrained(tmp_path / "c")
    loaded = [type(model).from_pretrained(tmp_path / which) for which in "bc"]
    codes = [key for key, value in expected.state_dict().items() if value.dtype == torch.float8_e4m3fn]
    assert len(codes) == done["layers"] > 0
    for other in loaded:
        found = other.state_dict()
        for key, value in expected.state_dict().items():
            bits = torch.uint8 if value.dtype == torch.float8_e4m3fn else value.dtype
            assert torch.equal(found[key].view(bits), value.view(bits)), key


def test_a_composite_models_text_config_may_say_that_it_is_in_fp8(tmp_path, run):
    """As transformers has it: to every command, the folder is the same."""
    save("llava", tmp_path / "a")
    run_quantization(Quantization(model=str(tmp_path / "a")), tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "nested")
    content = json.loads((tmp_path / "nested/config.json").read_text())
    content["text_config"]["quantization_config"] = content.pop("quantization_config")
    (tmp_path / "nested/config.json").write_text(json.dumps(content))
    whole, nested = (run("inspect", str(tmp_path / name)) for name in ("b", "nested"))
    assert nested[1].replace("nested", "b") == whole[1]
    assert is_stored(str(tmp_path / "nested"))
    code, _, err = run("quantize", str(tmp_path / "nested"), str(tmp_path / "c"))
    assert code == 2
    assert "holds FP8 weights with their scales already" in err
    octoscale.load(str(tmp_path / "nested")).model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/config.json").read_text())
    assert "quantization_config" in saved
    assert "quantization_config" not in saved["text_config"]


@pytest.mark.parametrize("name", [build.__name__ for build in NOT_CAUSAL])
@pytest.mark.parametrize(
    "command",
    [
        ("validate", "m", "--tokens", "32", "--window", "16"),
        ("train", "m", "--steps", "1", "--window", "16", "--tokens", "100"),
        ("generate", "m", "--prompt", "x", "--scaling", "bf16"),
    ],
    ids=lambda command: command[0],
)
def test_a_perplexity_is_for_models_that_predict_tokens(command, name, tmp_path, run):
    model = save(name, tmp_path / "m")
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert f"m is a {type(model).__name__}, which does not predict the next token" in err


def test_a_base_model_and_fewer_layers_of_an_fp8_folder(tmp_path):
    """As transformers does with a folder of bfloat16: the head is left out, and layers beyond the wanted number."""
    save_tiny_llama(tmp_path / "a")
    run_quantization(Quantization(model=str(tmp_path / "a")), tmp_path / "b")
    whole = T.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    base = T.AutoModel.from_pretrained(tmp_path / "b")
    short = T.AutoModelForCausalLM.from_pretrained(tmp_path / "b", num_hidden_layers=1)
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(base(ids).last_hidden_state, whole.model(ids).last_hidden_state)
        del whole.model.layers[1:]
        whole.config.num_hidden_layers = 1
        assert torch.equal(short(ids).logits, whole(ids).logits)


def take_out(folder, *names):
    content = load_file(folder / "model.safetensors")
    for name in names:
        del content[name]
    save_file(content, folder / "model.safetensors", {"format": "pt"})


LAYER = "model.layers.1"
LACKING = {
    "validate": ("validate", "m", "--tokens", "32", "--window", "16"),
    "by layer": ("validate", "m", "--tokens", "32", "--window", "16", "--batch", "--scaling", "bf16"),
    "generate": ("generate", "m", "--prompt", "x"),
    "train": ("train", "m", "--steps", "1", "--window", "16"),
    "quantize": ("quantize", "m", "out"),
}


@pytest.mark.parametrize("command", LACKING)
@pytest.mark.parametrize(
    "names",
    [
        ("model.norm.weight",),
        ("lm_head.weight",),
        ("model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"),
    ],
)
def test_a_tensor_that_is_not_there_is_an_error_that_names_it(names, command, tmp_path, run):
    take_out(save_tiny_llama(tmp_path / "m"), *names)
    code, out, err = run(*LACKING[command])
    assert (code, out) == (2, "")
    assert f"lacks {len(names)} of the model's tensors: {min(names)}" in err
    assert not (tmp_path / "out").exists()


def test_a_scale_that_is_not_there_is_an_error(tmp_path):
    save_tiny_llama(tmp_path / "a")
    run_quantization(Quantization(model=str(tmp_path / "a")), tmp_path / "b")
    take_out(tmp_path / "b", "model.layers.1.mlp.up_proj.weight_scale")
    with pytest.raises(ModelError, match=r"up_proj.weight is in FP8, and no weight_scale"):
        octoscale.load(str(tmp_path / "b"))


@pytest.mark.parametrize("build", [lambda: tiny_llama(tie_word_embeddings=True), tiny_gpt2])
def test_tied_weights_are_not_missing(build, tmp_path):
    build().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert octoscale.load(str(tmp_path)).note == ""


@pytest.mark.parametrize("name", ["bert", "tiny_llama", "t5", "bart"])
def test_a_classifiers_new_head_is_not_missing_and_the_rest_is(name, tmp_path):
    save(name, tmp_path)
    assert octoscale.load(str(tmp_path), num_labels=3).model.config.num_labels == 3
    key = next(
        key
        for key in load_file(tmp_path / "model.safetensors")
        if "layer.1" in key or "layers.1" in key or "block.1" in key
    )
    take_out(tmp_path, key)
    with pytest.raises(ModelError, match=r"lacks 1 of the model's tensors"):
        octoscale.load(str(tmp_path), num_labels=3)


def test_surplus_tensors_are_named(tmp_path):
    save_tiny_llama(tmp_path)
    content = load_file(tmp_path / "model.safetensors")
    content["model.layers.0.mystery.weight"] = torch.ones(3)
    save_file(content, tmp_path / "model.safetensors", {"format": "pt"})
    assert octoscale.load(str(tmp_path)).note.endswith("no use for: model.layers.0.mystery.weight")


CODE = "import pathlib; pathlib.Path({trace!r}).touch()\nclass C: pass\nclass M: pass\nclass K: pass\n"
MAPS = {
    "config": ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "code.C"}}),
    "model": ("config.json", {"auto_map": {"AutoModelForCausalLM": "code.M", "AutoModel": "code.M"}}),
    "tokenizer": (
        "tokenizer_config.json",
        {"tokenizer_class": "K", "auto_map": {"AutoTokenizer": ["code.K", "code.K"]}},
    ),
}


@pytest.mark.parametrize("command", [*LACKING.values(), ("inspect", "m")], ids=lambda c: " ".join(c[:1] + c[-1:]))
@pytest.mark.parametrize("where", MAPS)
def test_code_in_a_folder_never_runs(where, command, tmp_path, run, monkeypatch):
    """Whatever stands at the keyboard's end: nobody is asked."""
    save_tiny_llama(tmp_path / "m")
    trace = tmp_path / "ran"
    (tmp_path / "m" / "code.py").write_text(CODE.format(trace=str(trace)))
    file, change = MAPS[where]
    path = tmp_path / "m" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    monkeypatch.setattr(sys, "stdin", __import__("io").StringIO("y\n" * 50))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    code, _, err = run(*command)
    assert not trace.exists()
    assert code in (0, 2)
    assert "Traceback" not in err
    if where == "config":
        assert code == 2
        assert len([line for line in err.splitlines() if "error" in line]) == 1


@pytest.mark.parametrize("name", ["whisper", "tiny_llama"])
def test_code_of_a_classifier_never_runs_either(name, tmp_path, monkeypatch):
    """Of Whisper, transformers has no classifier of texts: there, the folder's own would have been offered."""
    save(name, tmp_path / "m")
    trace = tmp_path / "ran"
    (tmp_path / "m" / "code.py").write_text(CODE.format(trace=str(trace)))
    path = tmp_path / "m" / "config.json"
    change = {"auto_map": {"AutoModelForSequenceClassification": "code.M", "AutoModel": "code.M"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    monkeypatch.setattr(sys, "stdin", __import__("io").StringIO("y\n" * 50))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if name == "whisper":
        with pytest.raises(ModelError):
            octoscale.load(str(tmp_path / "m"), num_labels=2)
    else:
        loaded = octoscale.load(str(tmp_path / "m"), num_labels=2)
        assert "was not run: transformers' own LlamaForSequenceClassification reads it" in loaded.note
    assert not trace.exists()


def test_an_adapter_in_the_folder_hides_nothing(tmp_path):
    """transformers adds it to the model, and reports of its tensors alone."""
    peft = pytest.importorskip("peft")
    folder = save_tiny_llama(tmp_path / "m")
    model = peft.get_peft_model(T.LlamaForCausalLM.from_pretrained(folder), peft.LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(folder)
    assert any("lora" in name for name, _ in octoscale.load(str(folder)).model.named_parameters())
    take_out(folder, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"lacks 1 of the model's tensors: model.layers.1.mlp.up_proj.weight"):
        octoscale.load(str(folder))


def test_what_was_passed_over_is_said_after_training(tmp_path, run):
    folder = save_tiny_llama(tmp_path / "m")
    content = load_file(folder / "model.safetensors")
    content["model.layers.0.mystery.weight"] = torch.ones(3)
    save_file(content, folder / "model.safetensors", {"format": "pt"})
    code, out, err = run("train", folder, "--steps", "1", "--batch", "1", "--window", "16", "--tokens", "64")
    assert code == 0, err
    assert "no use for: model.layers.0.mystery.weight" in out


def bert_generation(**words):
    return T.BertGenerationDecoder(T.BertGenerationConfig(**BERT, **words))


def roberta(**words):
    return T.RobertaForCausalLM(T.RobertaConfig(**BERT, **words))


def xlm(**words):
    return T.XLMWithLMHeadModel(T.XLMConfig(vocab_size=256, emb_dim=32, n_layers=2, n_heads=4, **words))


@pytest.mark.parametrize(
    ("build", "words"),
    [(bert_generation, "is_decoder"), (roberta, "is_decoder"), (xlm, "causal"), (lambda **_: tiny_llama(), "any")],
)
def test_what_sees_later_tokens_does_not_predict_the_next_one(build, words):
    """Oracle: the logits of a text whose last token is another one."""
    for flag in (False, True):
        torch.manual_seed(0)
        model = build(**{words: flag}).eval()
        text = torch.arange(5, 15)[None]
        other = text.clone()
        other[0, -1] = 40
        with torch.no_grad():
            before, after = model(text).logits[0, :-1], model(other).logits[0, :-1]
        assert predicts_tokens(model) == torch.allclose(before, after, atol=1e-6)
