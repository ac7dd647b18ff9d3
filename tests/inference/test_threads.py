"""Several threads at one model, one recorder, one history. Oracles: the number of calls; the logits of one thread."""

import copy
import threading

import pytest
import torch
from implementations import BACKENDS
from models import tiny_llama, tokens

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.inference.fuse import fuse
from octoscale.inference.huge_pages import gather_huge_pages
from octoscale.numerics.recipe import parse_scaling
from octoscale.numerics.scaling import History

THREADS = 8


def together(*jobs):
    """Run the jobs at once; the first error that one of them raises is raised here."""
    errors, gate = [], threading.Barrier(len(jobs))

    def work(job):
        gate.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001  it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def passes(model, number):
    @torch.no_grad()
    def job():
        for _ in range(number):
            model(tokens())

    return job


def test_no_row_is_lost_where_several_threads_are_recorded(tmp_path):
    """Oracle: an input's row for each layer and pass; rows go to disk all the time."""
    model = tiny_llama()
    octoscale.convert(model, Recipe.amax())
    with octoscale.record(model, tmp_path, flush_seconds=0.0) as recorder:
        together(*[passes(model, 5)] * THREADS)
    rows = octoscale.read_scales(tmp_path)
    assert recorder.step == 5 * THREADS
    assert rows.filter(role="input").height == 14 * 5 * THREADS
    assert rows.filter(role="weight").height == 14


def test_several_recorders_of_a_folder_give_each_part_its_number(tmp_path):
    models = [tiny_llama() for _ in range(THREADS)]

    def job(model, phase):
        octoscale.convert(model, Recipe.amax())
        with octoscale.record(model, tmp_path, flush_seconds=0.0, phase=phase):
            passes(model, 3)()

    passes(models[0], 1)()
    together(*[lambda m=m, i=i: job(m, f"p{i}") for i, m in enumerate(models)])
    rows = octoscale.read_scales(tmp_path)
    assert rows.height == THREADS * (14 + 14 * 3)
    assert set(rows["phase"]) == {f"p{i}" for i in range(THREADS)}


def test_delayed_scaling_takes_several_threads():
    model = tiny_llama()
    octoscale.convert(model, parse_scaling("delayed:history=4"))
    together(*[passes(model, 10)] * THREADS)


def test_a_history_keeps_the_largest_of_all_threads():
    history = History(3)

    def job(start):
        for i in range(start, 2000, THREADS):
            history.observe(torch.tensor(float(i)))

    together(*[lambda i=i: job(i) for i in range(THREADS)])
    history.advance()
    assert history.save() == [1999.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built")
def test_weights_may_move_while_a_model_writes():
    """Oracle: the same text from a model that nobody touches; freed memory that is read would end the process."""
    base = tiny_llama(hidden_size=64, intermediate_size=112, max_position_embeddings=128).bfloat16()
    quantize_model(base, OctoscaleConfig("amax"))
    ids = tokens(batch=1, length=5)
    words = {"max_new_tokens": 40, "min_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    model = copy.deepcopy(base)
    fuse(model)
    with torch.no_grad():
        expected = model.generate(ids, **words)

    for _ in range(50):
        model = copy.deepcopy(base)
        fuse(model)
        stop, found = threading.Event(), []

        def write(model=model, found=found, stop=stop):
            with torch.no_grad():
                found.append(model.generate(ids, **words))
            stop.set()

        def move(model=model, stop=stop):
            while not stop.is_set():
                gather_huge_pages(model, least_bytes=0)
                for parameter in model.parameters():
                    parameter.data = parameter.data.clone()

        together(write, move)
        assert torch.equal(found[0], expected)
