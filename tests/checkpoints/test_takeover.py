"""What is changed in transformers, and that it can be undone. Oracle: transformers' own tables and functions."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import octoscale.hf
import pytest
import torch
from checkpoints import save_tiny_llama
from transformers import PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils import logging

from octoscale.checkpoints.settings import Quantization
from octoscale.checkpoints.takeover import give_back, in_force, take_over
from octoscale.models.export import run_quantization


def state():
    """All that a takeover changes."""
    return dict(AUTO_QUANTIZATION_CONFIG_MAPPING), dict(AUTO_QUANTIZER_MAPPING), PreTrainedModel._load_pretrained_model


@pytest.fixture
def original():
    """transformers as it is without us, while the test runs."""
    give_back()
    yield state()
    take_over()


def test_it_can_be_undone_and_done_again(original):
    assert "octoscale" not in original[1]
    assert "octoscale" not in original[0]
    take_over()
    taken = state()
    assert taken[1]["octoscale"] is octoscale.hf.OctoscaleQuantizer
    assert taken[2] is not original[2]
    assert all(taken[0][method] is not original[0][method] for method in ("fp8", "compressed-tensors"))
    take_over()  # changes nothing, and is undone by one call
    give_back()
    assert state() == original
    give_back()
    assert state() == original
    take_over()
    assert state()[1]["octoscale"] is octoscale.hf.OctoscaleQuantizer


def test_a_block_leaves_nothing_behind(original):
    with in_force():
        assert "octoscale" in state()[1]
        with in_force():
            pass
        assert "octoscale" in state()[1]
    assert state() == original
    with pytest.raises(ZeroDivisionError), in_force():
        1 / 0  # noqa: B018
    assert state() == original


def test_what_is_asked_for_good_stays_after_a_block_and_blocks_outlast_what_is_given_back(original):
    with in_force():
        take_over()
    assert "octoscale" in state()[1]
    with in_force():
        give_back()
        assert "octoscale" in state()[1]
    assert state() == original


def test_blocks_of_several_threads(original):
    """Many enter and leave at once; all of them find it in force, and the last one restores."""
    missing, barrier = [], threading.Barrier(8)

    def work():
        barrier.wait()
        for _ in range(200):
            with in_force():
                if "octoscale" not in AUTO_QUANTIZER_MAPPING:
                    missing.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert state() == original


LOAD = """
import sys, random, torch, transformers
from transformers import PreTrainedModel, AutoModelForCausalLM
from transformers.quantizers import auto
from transformers.utils import logging

def state():
    tables = dict(auto.AUTO_QUANTIZATION_CONFIG_MAPPING), dict(auto.AUTO_QUANTIZER_MAPPING)
    tables = *tables, PreTrainedModel._load_pretrained_model
    return *tables, logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_rng_state().tolist()

logging.set_verbosity_info()
torch.manual_seed(5)
before = state()
import octoscale
from octoscale.inference.generate import Sampling, Writer
from octoscale.layers.stored import StoredLinear
fp8, plain = sys.argv[1:]
stored = octoscale.load(fp8).model
assert any(isinstance(module, StoredLinear) for module in stored.modules())
octoscale.load(plain, seed=3)
octoscale.load("gpt-10m")
try:
    octoscale.load("no/such/folder/at/all")
except octoscale.models.loading.ModelError:
    pass
Writer(plain, "amax").write([5, 6], Sampling(max_new_tokens=2, temperature=1.0), lambda _: None)
assert state() == before
import octoscale.hf
assert state() != before
again = AutoModelForCausalLM.from_pretrained(fp8)
assert any(isinstance(module, StoredLinear) for module in again.modules())
"""


def test_load_leaves_nothing_behind(tmp_path):
    """Not its registrations, its seed, or its level of logging: in a fresh interpreter, where nothing was imported."""
    plain = save_tiny_llama(tmp_path / "plain")
    run_quantization(Quantization(model=str(plain)), tmp_path / "fp8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "fp8"), str(plain)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_seed_of_load_decides_and_the_caller_s_does_not():
    """Oracle: the same seed twice, between draws of the caller."""
    first = octoscale.load("gpt-10m", seed=1).model.state_dict()
    torch.manual_seed(99)
    again, other = (octoscale.load("gpt-10m", seed=seed).model.state_dict() for seed in (1, 2))
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_threads_that_load_at_once_get_what_their_seeds_say_and_leave_nothing_behind():
    """Oracle: each seed alone. They share one generator and one level of logging."""
    expected = {seed: octoscale.load("gpt-10m", seed=seed).model.state_dict() for seed in (1, 2)}
    level, drawn = logging.get_verbosity(), torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: (seed, octoscale.load("gpt-10m", seed=seed).model), [1, 2] * 4))
    for seed, model in found:
        assert all(torch.equal(value, expected[seed][key]) for key, value in model.state_dict().items())
    assert logging.get_verbosity() == level
    assert torch.equal(torch.get_rng_state(), drawn)
