"""Checkpoints under the model's own names. Oracle: the tensors that were written; a training without a stop."""

from pathlib import Path

import pytest
import torch
import transformers
from models import VOCABULARY, tiny_gpt2, tiny_llama
from safetensors.torch import load_file, save_file

import octoscale
from octoscale.models.materialize import byte_tokenizer
from octoscale.training.model_state import RENAMED, load_renamed, load_state, own_memory, save_renamed, save_state
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
OWN_EOS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def neox(**changes):
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES, **OWN_EOS, **changes))


def mixtral(**changes):
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, **OWN_EOS, **experts, **changes))


def qwen_moe():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_key_value_heads": 2}
    config = transformers.Qwen2MoeConfig(**SIZES, **OWN_EOS, **experts, shared_expert_intermediate_size=16)
    return transformers.Qwen2MoeForCausalLM(config)


def tied():
    return tiny_llama(tie_word_embeddings=True)


def classifier():
    config = transformers.GPTNeoXConfig(**SIZES, **OWN_EOS, num_labels=3)
    return transformers.GPTNeoXForSequenceClassification(config)


RENAMING = {"neox": neox, "mixtral": mixtral, "qwen_moe": qwen_moe}
ALL = {**RENAMING, "llama": tiny_llama, "tied": tied, "gpt2": tiny_gpt2, "classifier": classifier}


def randomized(model, seed=0):
    """The same model with other values everywhere."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in {t.data_ptr(): t for t in model.state_dict().values() if t.is_floating_point()}.values():
            tensor.normal_()
    return model


def equal(left, right) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ALL)
def test_every_tensor_comes_back(name, tmp_path):
    before, after = randomized(ALL[name](), 1), randomized(ALL[name](), 2)
    assert not equal(before, after)
    save_state(before, tmp_path)
    load_state(after, tmp_path)
    assert equal(before, after)
    if name == "tied":
        assert after.lm_head.weight is after.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["neox", "mixtral", "tied", "gpt2"])
def test_transformers_knows_the_folder_for_a_model(name, tmp_path):
    before = randomized(ALL[name]()).eval()
    save_state(before, tmp_path)
    after = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(before(ids).logits, after(ids).logits)


@pytest.mark.parametrize("name", ["neox", "llama", "tied"])
def test_a_missing_and_a_surplus_tensor_are_named(name, tmp_path):
    model = ALL[name]()
    save_state(model, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    lost = next(key for key in tensors if key.endswith("layernorm.weight"))
    save_file({**{k: v for k, v in tensors.items() if k != lost}, "strange": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=f"it lacks {lost}; it holds strange, which the model has not"):
        load_state(model, tmp_path)


def test_a_checkpoint_of_save_pretrained_is_no_silent_reset(tmp_path):
    """As an older version wrote it: the head is in the file under another name."""
    neox().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"it lacks lm_head.weight; it holds embed_out.weight"):
        load_state(neox(), tmp_path)


def test_no_checkpoint_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model.safetensors: octoscale train did not write it"):
        load_state(neox(), tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_what_save_pretrained_renames_is_kept_beside(name, tmp_path):
    """Oracle: Trainer's own way back, load_state_dict without strictness, then ours."""
    before, after = randomized(ALL[name](), 1), randomized(ALL[name](), 2)
    before.save_pretrained(tmp_path)
    save_renamed(before, tmp_path)
    assert (tmp_path / RENAMED).exists() == (name in RENAMING)
    after.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    load_renamed(after, tmp_path)
    assert equal(before, after)


def test_a_checkpoint_without_what_was_renamed_is_refused(tmp_path):
    model = neox()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"it lacks lm_head.weight"):
        load_renamed(model, tmp_path)


def arguments(folder: Path, steps: int, **more):
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_steps=2,
        logging_steps=1,
        dataloader_pin_memory=False,
        **more,
    )


@pytest.mark.parametrize("name", ["mixtral", "neox"])
def test_a_trainer_of_ones_own_goes_on_with_every_weight(name, tmp_path):
    """Oracle: the same training in one go, by transformers' Trainer with our callback."""
    windows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, VOCABULARY, (8, 16))]

    def train(folder, steps, **more):
        torch.manual_seed(0)
        model = RENAMING[name]().train()
        octoscale.convert(model, octoscale.Recipe.amax())
        callback = octoscale.TrainerCallback(tmp_path / f"run-{folder}")
        trainer = transformers.Trainer(
            model=model, args=arguments(tmp_path / folder, steps), train_dataset=windows, callbacks=[callback]
        )
        trainer.train(**more)
        return model

    whole = train("whole", 4)
    train("parts", 2)
    assert equal(train("parts", 4, resume_from_checkpoint=True), whole)


@pytest.mark.parametrize("stop", [2, 4], ids=["before its end", "after its last step"])
@pytest.mark.parametrize("name", ["mixtral", "neox"])
def test_a_resumed_training_of_ours_has_every_weight(name, stop, tmp_path):
    """Oracle: the same in one go; and a run stopped after its last step, before the model was saved."""
    torch.manual_seed(0)
    RENAMING[name]().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    words = {"model": str(tmp_path / "model"), "text": str(tmp_path / "text.txt"), "window": 32, "batch": 2}
    plan = Training(**words, steps=4, learning_rate=1e-2, every=0, save_every=2)
    whole = run_training(plan, tmp_path / "whole")
    part = run_training(Training(**{**vars(plan), "steps": stop}), tmp_path / "part")
    part.summary.unlink()
    part = run_training(plan, part.path, go_on=True)
    ours, theirs = (load_file(run.model / "model.safetensors") for run in (part, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    losses = [[r[k] for r in run.read_metrics() for k in ("loss", "eval_loss") if k in r] for run in (part, whole)]
    assert losses[0] == losses[1]


def test_parts_of_one_tensor_get_memory_of_their_own(tmp_path):
    """Oracle: the values before; tied parameters stay one. safetensors refuses to write parts."""
    model = tiny_llama(tie_word_embeddings=True)
    attention = model.model.layers[0].self_attn
    whole = torch.randn(64, 32)
    for name, part in zip(("q_proj", "k_proj", "v_proj"), whole.split([32, 16, 16]), strict=True):
        attention.get_submodule(name).weight.data = part
    with pytest.raises(RuntimeError, match="covering the entire storage"):
        save_state(model, tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own_memory(model)
    save_state(model, tmp_path)
    again = tiny_llama(tie_word_embeddings=True, seed=1)
    load_state(again, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())
    assert model.lm_head.weight is model.model.embed_tokens.weight
