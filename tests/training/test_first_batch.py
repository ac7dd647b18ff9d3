"""What a model says to its first batch. Oracle: the model's own error, asked without FP8; nothing is left behind."""

import pytest
import torch
import transformers
from checkpoints import byte_tokenizer, save_tiny_llama
from models import VOCABULARY, tiny_gpt2, tiny_llama
from transformers import Blip2Config, Blip2ForConditionalGeneration

from octoscale.models.errors import ModelError
from octoscale.training.first_batch import check_first_batch
from octoscale.training.run import run_training
from octoscale.training.settings import Training

BATCH = {key: torch.arange(32).view(2, 16) % VOCABULARY for key in ("input_ids", "labels")}


class Wants(torch.nn.Module):
    """A model that takes float32 only, as DBRX's experts do."""

    device, config = torch.device("cpu"), None

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_llama()

    def forward(self, **batch):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected m1 and m2 to have the same dtype\nand more")
        return self.inner(**batch)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_model_that_learns_is_left_as_it_was(make, dtype):
    """Its mode, its parameters, and the state of chance."""
    model = make().train()
    before, chance = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    check_first_batch("it", model, BATCH, dtype)
    assert model.training
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_dtype_that_its_code_does_not_compute_in_names_the_remedy(dtype):
    with pytest.raises(
        ModelError, match=f"^Wants does not compute in {dtype}: RuntimeError: .*same dtype; train it with"
    ):
        check_first_batch("it", Wants(), BATCH, dtype)
    check_first_batch("it", Wants(), BATCH, "fp32")


def test_a_model_without_a_loss():
    """transformers' base models give hidden states alone."""
    with pytest.raises(ModelError, match="it is a LlamaModel, which does not learn from such texts: it gives no loss"):
        check_first_batch("it", tiny_llama().model, BATCH, "fp32")


def test_a_model_that_wants_a_picture_makes_no_run(tmp_path):
    text = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "model_type": "opt"}
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"ffn_dim": 16, "word_embed_proj_dim": 16}
    config = Blip2Config(
        vision_config={**small, "image_size": 16, "patch_size": 8}, qformer_config=small, text_config=text
    )
    config.qformer_config.encoder_hidden_size = 16
    Blip2ForConditionalGeneration(config).save_pretrained(tmp_path / "blip")
    byte_tokenizer().save_pretrained(tmp_path / "blip")
    (tmp_path / "text.txt").write_text("The quick brown fox. " * 20)
    plan = Training(model=str(tmp_path / "blip"), text=str(tmp_path / "text.txt"), window=16, steps=1, batch=1)
    with pytest.raises(
        ModelError, match=r"Blip2ForConditionalGeneration, which does not learn from such texts: .*pixel"
    ):
        run_training(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_reach_a_model_whose_signature_names_none(tmp_path):
    """As many classifiers of transformers 5 have it. Oracle: the labels that arrive."""
    save_tiny_llama(tmp_path / "llama")
    (tmp_path / "task.tsv").write_text("text\tlabel\n" + "a fox\tyes\na dog\tno\n" * 8)
    seen = []

    class LlamaForSequenceClassification(transformers.LlamaForSequenceClassification):
        def forward(self, input_ids, **more):
            seen.append(more["labels"])
            return super().forward(input_ids, **more)

    with pytest.MonkeyPatch.context() as patch:
        mapping = transformers.AutoModelForSequenceClassification._model_mapping
        patch.setattr(
            mapping,
            "_extra_content",
            {**mapping._extra_content, transformers.LlamaConfig: LlamaForSequenceClassification},
        )
        plan = Training(
            model=str(tmp_path / "llama"), task=str(tmp_path / "task.tsv"), window=16, steps=1, batch=2, dtype="fp32"
        )
        run_training(plan, tmp_path / "run")
    assert {int(label) for labels in seen for label in labels} == {0, 1}
