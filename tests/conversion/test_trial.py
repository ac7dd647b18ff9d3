"""One call of a model in FP8. Oracle: layers that were taken out of the way, by hand."""

import json

import pytest
import torch
import transformers as T
from models import TINY, tiny_gpt2, tiny_llama, tokens
from torch import nn

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.conversion.trial import layers_not_run

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, **LAYERS}


def vit():
    return T.ViTForImageClassification(T.ViTConfig(**WIDTHS, image_size=32, patch_size=8))


def whisper():
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 64))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = T.WhisperConfig(
        vocab_size=96, d_model=32, num_mel_bins=16, max_source_positions=50, **sides, **heads, **special
    )
    return T.WhisperForConditionalGeneration(config)


def wav2vec2():
    convolutions = {"conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16}
    return T.Wav2Vec2ForCTC(T.Wav2Vec2Config(vocab_size=96, **WIDTHS, **convolutions, num_conv_pos_embedding_groups=4))


def bert():
    return T.BertForMaskedLM(T.BertConfig(vocab_size=20, **WIDTHS, max_position_embeddings=16))


def bart():
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 64))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = T.BartConfig(vocab_size=96, d_model=32, max_position_embeddings=40, **sides, **heads)
    return T.BartForConditionalGeneration(config)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "build", [*TINY.values(), vit, whisper, wav2vec2, bert, bart], ids=lambda build: build.__name__
)
def test_texts_pictures_and_sounds_run_all_layers(build, stored):
    model = build().bfloat16()
    quantize_model(model, OctoscaleConfig("amax")) if stored else octoscale.convert(model, Recipe.amax())
    assert layers_not_run(model) == []


@pytest.mark.parametrize("stored", [False, True])
def test_a_layer_that_is_left_out_is_named(stored):
    model = tiny_llama()
    quantize_model(model, OctoscaleConfig("amax")) if stored else octoscale.convert(model, Recipe.amax())
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda x: mlp.down_proj(x.repeat(1, 1, 2))
    assert layers_not_run(model) == ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]


def test_inputs_of_ones_own():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.picture, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, text, picture=None):
            return self.head(self.text(text) if picture is None else self.picture(picture))

    model = Pair()
    octoscale.convert(model, Recipe.amax())
    assert layers_not_run(model, text=torch.ones(1, 4)) == ["picture"]
    assert layers_not_run(model, text=None, picture=torch.ones(1, 4)) == ["text"]
    with pytest.raises(ValueError, match="a Pair takes what nothing says: give it inputs to run on"):
        layers_not_run(model)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = tiny_gpt2().train()
    octoscale.convert(model, Recipe.amax())
    inputs = {"input_ids": torch.full((1, 3), 999 if fails else 3)}
    if fails:
        with pytest.raises(IndexError):
            layers_not_run(model, **inputs)
    else:
        assert layers_not_run(model, **inputs) == []
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    model(tokens(), labels=tokens()).loss.backward()


def test_inspect_run_names_them(run_inspect, tmp_path):
    """Oracle: Switch's experts: eight of them in a layer, of which each of 32 tokens takes one."""
    sizes = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "num_experts": 64}
    more = {"num_sparse_encoder_layers": 1, "num_decoder_layers": 2, "num_sparse_decoder_layers": 1}
    config = T.SwitchTransformersConfig(**sizes, **more, decoder_start_token_id=0)
    T.SwitchTransformersForConditionalGeneration(config).save_pretrained(tmp_path / "switch")
    out = run_inspect(tmp_path / "switch", "--run")
    report = json.loads(run_inspect(tmp_path / "switch", "--run", "--json"))
    assert report["not_run"]
    assert all(".experts.expert_" in name for name in report["not_run"])
    num_fp8 = sum(row["converted"] for row in report["modules"])
    assert f"{num_fp8 - len(report['not_run'])} of {num_fp8} FP8 layers ran; not called" in out
    assert report["not_run"][0] in out.splitlines()[-1]


def test_inspect_run_takes_a_checkpoint_in_fp8(run_inspect, tmp_path):
    tiny_llama().bfloat16().save_pretrained(tmp_path / "plain")
    config = OctoscaleConfig("amax", skip=["up_proj"])
    model = T.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
    model.save_pretrained(tmp_path / "fp8")
    assert run_inspect(tmp_path / "fp8", "--run").splitlines()[-1] == "12 of 12 FP8 layers ran"
    assert run_inspect(tmp_path / "plain", "--run").splitlines()[-1] == "14 of 14 FP8 layers ran"


@pytest.fixture
def run_inspect(monkeypatch, capsys):
    """The output of `octoscale inspect ...`."""
    from octoscale.cli import main as cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["octoscale", "inspect", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        assert not ended.value.code, out.err
        return out.out

    return run
