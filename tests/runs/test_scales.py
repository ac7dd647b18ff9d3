"""Every cast leaves a row, and every row survives. Oracles: numerics/reference.py for numbers, the disk for files."""

import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import polars as pl
import pytest
import torch
from models import TINY, tokens
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from octoscale import Recipe, Recorder, convert, read_scales, record
from octoscale.kernels import ops
from octoscale.numerics import reference
from octoscale.numerics.formats import ROLES, get_format
from octoscale.numerics.scaling import Amax
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import SCHEMA, LayerName, drop_scales

K, N = 6, 5
FLOAT32_BIAS, NONFINITE_BIN = 127, 255


def model(recipe: Recipe | None = None, num_layers: int = 1, seed: int = 0) -> nn.Sequential:
    """FP8 layers named 0, 1, ...; the first is K -> N, the others N -> N. (The last linear layer is the head: kept.)"""
    torch.manual_seed(seed)
    layers = [nn.Linear(K if i == 0 else N, N) for i in range(num_layers)]
    network = nn.Sequential(*layers, nn.Linear(N, N))
    convert(network, recipe or Recipe.amax())
    network[-1] = nn.Identity()
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows(folder: Path, **equal) -> list[dict]:
    """The rows of a run, in order, with these values in these columns."""
    return read_scales(folder).filter(*(pl.col(key) == value for key, value in equal.items())).to_dicts()


def parts(folder: Path) -> list[str]:
    return sorted(part.name for part in (folder / "scales").glob("part-*.parquet"))


def recorders(network: nn.Module) -> list:
    return [layer.fp8.runtime.recorder for layer in network if hasattr(layer, "fp8")]


# The numbers


def expected_row(x: Tensor, format: str, bias: int) -> dict:
    """What numerics/reference.py says of the cast of `x` with this scale_bias."""
    values = x.detach().flatten().tolist()
    _, seen = reference.quantize(values, get_format(format), bias)
    exponents = [0] * 256
    for exponent, times in reference.exponent_counts(values).items():
        exponents[max(0, exponent + FLOAT32_BIAS)] += times
    exponents[0] += values.count(0.0)
    exponents[NONFINITE_BIN] = seen.nonfinite
    return {
        "format": format,
        "scale_bias": bias,
        "amax": seen.amax,
        "numel": x.numel(),
        "saturated": seen.saturated,
        "flushed": seen.flushed,
        "nonfinite": seen.nonfinite,
        "exponents": exponents,
    }


def wild(*shape: int, seed: int) -> Tensor:
    """Values over 60 binades, so that some saturate and some flush, with zeros of both signs and a subnormal."""
    exponents = torch.randint(-40, 20, shape, generator=torch.Generator().manual_seed(seed))
    x = normal(*shape, seed=seed) * torch.exp2(exponents)
    x.view(-1)[:3] = torch.tensor([0.0, -0.0, 2.0**-140])
    return x


@pytest.mark.parametrize("formats", ["ocp", "fnuz"])
@pytest.mark.parametrize("bad", [None, math.inf, math.nan])
@pytest.mark.parametrize("scaling", ["amax", "cscale"])
def test_a_row_says_what_the_cast_did(tmp_path, scaling, bad, formats):
    recipe = Recipe.amax(formats=formats) if scaling == "amax" else Recipe.cscale(4, formats=formats)
    network, x, g = model(recipe), wild(7, K, seed=1), wild(7, N, seed=2)
    weight = network[0].weight
    with torch.no_grad():
        weight.copy_(wild(N, K, seed=3))
    if bad is not None:
        x[3, 3] = g[2, 2] = bad
    with record(network, tmp_path, phase="train"):
        network(x.requires_grad_()).backward(g)
    got = read_scales(tmp_path)
    assert got.schema == pl.Schema(SCHEMA)
    assert got["role"].to_list() == ["weight", "input", "grad_output"]
    for row, tensor in zip(got.to_dicts(), (weight, x, g), strict=True):
        operand = recipe.operand(row["role"])
        amax = tensor.detach().abs().max().item()
        bias = 4 if scaling == "cscale" else reference.scale_bias(amax, get_format(operand.format))
        expected = expected_row(tensor, operand.format, bias)
        name = {"step": 0, "phase": "train", "scaling": recipe.name, "module": "0", "layer": None, "kind": "other"}
        name |= {"rank": 0, "granularity": "tensor", "scale_bias_high": None, "num_scales": None}
        if row["role"] != "weight" and bad is not None:
            assert expected["nonfinite"] == 1
            assert math.isnan(row["amax"]) == math.isnan(bad)
        if math.isnan(row["amax"]):  # NaN is not equal to itself
            assert math.isnan(expected.pop("amax"))
            del row["amax"]
        assert row == {**name, "role": row["role"], **expected}


@pytest.mark.parametrize("name", TINY)
def test_rows_name_the_decoder_layer_and_the_kind(tmp_path, name):
    network = TINY[name]()
    report = convert(network, Recipe.amax())
    with record(network, tmp_path), torch.no_grad():
        network(tokens())
    expected = sorted((row.module, row.layer, row.kind) for row in report.converted)
    for role in ("weight", "input"):
        assert sorted((row["module"], row["layer"], row["kind"]) for row in rows(tmp_path, role=role)) == expected
    assert {layer for _, layer, _ in expected} == {0, 1}


def test_siblings_that_share_a_cast_have_a_row_each(tmp_path):
    class Siblings(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.head = nn.Linear(K, N), nn.Linear(K, N), nn.Linear(N, N)

        def forward(self, x):
            return self.q(x) + self.k(x)

    network = Siblings()
    convert(network, Recipe.amax())
    with record(network, tmp_path):
        network(normal(4, K))
    q, k = rows(tmp_path, role="input")
    assert (q.pop("module"), k.pop("module")) == ("q", "k")
    assert q == k


# Steps


def test_a_step_is_a_forward_and_its_backward(tmp_path):
    """Micro-batches: three forwards between two optimizer steps. The weight has a row when it is cast."""
    network = model(num_layers=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with record(network, tmp_path):
        for step in range(6):
            network(normal(4, K, seed=step)).square().sum().backward()
            if step % 3 == 2:
                optimizer.step()
    for module in ("0", "1"):
        steps = {role: [row["step"] for row in rows(tmp_path, module=module, role=role)] for role in ROLES}
        assert steps == {"input": list(range(6)), "grad_output": list(range(6)), "weight": [0, 3]}
    amax = [row["amax"] for row in rows(tmp_path, module="0", role="input")]
    assert amax == [normal(4, K, seed=step).abs().max().item() for step in range(6)]


RECOMPUTED = pytest.param(True, marks=pytest.mark.xfail(strict=True, reason="a recomputed forward is of the last step"))


@pytest.mark.parametrize("checkpointed", [False, RECOMPUTED])
def test_a_gradient_belongs_to_the_step_of_its_forward(tmp_path, checkpointed):
    """Two forwards, then their backward passes, as in contrastive or preference losses."""
    network = Checkpointed() if checkpointed else model(num_layers=2)
    with record(network, tmp_path):
        first, second = (network(normal(4, K, seed=seed).requires_grad_()) for seed in (1, 2))
        first.sum().backward()
        second.sum().backward()
    assert [row["step"] for row in rows(tmp_path, role="grad_output")] == [0, 0, 1, 1]


def test_the_step_can_be_set(tmp_path):
    """As Recorder's docstring says: `step` is set by whoever drives the training."""
    network = model()
    with record(network, tmp_path) as recorder:
        for step in (100, 200):
            recorder.step = step
            network(normal(4, K))
    assert [row["step"] for row in rows(tmp_path, role="input")] == [100, 200]


@pytest.mark.parametrize(("every", "with_exponents"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (0, [])])
def test_exponents_are_recorded_on_each_nth_step(tmp_path, every, with_exponents):
    network = model(num_layers=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with record(network, tmp_path, every=every):
        for step in range(7):
            network(normal(4, K, seed=step)).square().sum().backward()
            optimizer.step()
    got = read_scales(tmp_path)
    assert len(got) == 7 * 2 * 3  # `every` thins out the histograms, not the rows
    for row in got.to_dicts():
        assert (row["exponents"] is not None) == (row["step"] in with_exponents)
        assert row["exponents"] is None or sum(row["exponents"]) == row["numel"]


class Checkpointed(nn.Module):
    """Two FP8 layers whose forward is made again in backward."""

    def __init__(self, *, use_reentrant: bool = True):
        super().__init__()
        self.body, self.use_reentrant = model(num_layers=2), use_reentrant

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_forward_leaves_no_row(tmp_path, use_reentrant):
    networks = {"plain": model(num_layers=2), "checkpointed": Checkpointed(use_reentrant=use_reentrant)}
    for name, network in networks.items():
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        with record(network, tmp_path / name):
            for step in range(3):
                network(normal(4, K, seed=step).requires_grad_()).square().sum().backward()
                optimizer.step()
    assert len(rows(tmp_path / "plain")) == 3 * 2 * 3
    assert rows(tmp_path / "checkpointed") == rows(tmp_path / "plain")


def test_inference_has_a_row_for_each_input_and_one_for_the_weight(tmp_path):
    network = model().eval()
    for block in ("first", "second"):  # the weight is known from the first; each run records it all the same
        with record(network, tmp_path / block), torch.inference_mode():
            for seed in range(3):
                network(normal(4, K, seed=seed))
        assert [row["role"] for row in rows(tmp_path / block)] == ["weight", "input", "input", "input"]


def test_a_cast_made_before_the_recording_is_made_again_with_counts(tmp_path):
    network, x = model(), normal(4, K)
    network(x)
    with record(network, tmp_path):
        network(x)
    assert [row["numel"] for row in rows(tmp_path, role="input")] == [x.numel()]


@pytest.mark.parametrize("recipe", [Recipe.amax(), Recipe.delayed(history=1)], ids=["amax", "delayed"])
def test_recording_changes_no_bit(tmp_path, recipe):
    """Also not if it begins and ends between the micro-batches of a step."""

    def train(*, recorded):
        network, gradients = model(recipe, num_layers=2), []
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for step in range(4):
            optimizer.zero_grad()
            with record(network, tmp_path / str(step)) if recorded and step % 2 else nullcontext():
                network(4.0**step * normal(4, K, seed=step)).square().sum().backward()
            with record(network, tmp_path / str(step)) if recorded else nullcontext():
                network(2.0**step * normal(4, K, seed=step)).square().sum().backward()
            gradients += [parameter.grad.clone() for parameter in network.parameters()]
            optimizer.step()
        return gradients

    for a, b in zip(train(recorded=True), train(recorded=False), strict=True):
        assert torch.equal(a, b)


# The block


def test_record_needs_an_fp8_model(tmp_path):
    message = r"no FP8 layer: call octoscale\.convert\(model, recipe\) first"
    with pytest.raises(ValueError, match=message), record(nn.Linear(2, 2), tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_module_with_an_attribute_fp8_is_not_taken_for_a_layer(tmp_path):
    network = model()
    network.fp8 = True
    with record(network, tmp_path):
        network(normal(4, K))


def test_record_cannot_be_nested(tmp_path):
    network, message = model(), r"being recorded already: leave the other record\(\) block first"
    with record(network, tmp_path / "outer"):
        with pytest.raises(ValueError, match=message), record(network[:1], tmp_path / "inner"):
            pass
        network(normal(4, K))
    assert len(rows(tmp_path / "outer")) == 2
    assert not (tmp_path / "inner").exists()


def test_a_negative_every_is_refused_and_nothing_is_attached(tmp_path):
    network = model()
    message = r"every=-1: .* every N steps, N >= 1, or never, 0"
    with pytest.raises(ValueError, match=message), record(network, tmp_path, every=-1):
        pass
    assert recorders(network) == [None]


def test_the_recorder_is_detached_after_the_block_and_after_an_exception(tmp_path):
    network = model()
    with record(network, tmp_path):
        network(normal(4, K))
    with pytest.raises(RuntimeError, match="out of memory"), record(network, tmp_path, phase="fails"):  # noqa: PT012
        network(normal(4, K))
        raise RuntimeError("out of memory")
    assert recorders(network) == [None]
    network(normal(4, K))  # counted by nobody
    assert [row["step"] for row in rows(tmp_path, phase="fails")] == [0, 0]  # weight and input, before the exception
    with record(network, tmp_path, phase="again"):
        network(normal(4, K))
    assert [row["step"] for row in rows(tmp_path, phase="again")] == [0, 0]


def test_an_exception_in_the_forward_leaves_the_rows_before_it(tmp_path):
    network = model()
    with pytest.raises(ValueError, match="takes inputs"), record(network, tmp_path):  # noqa: PT012
        network(normal(4, K))
        network(normal(4, K + 1))
    assert len(rows(tmp_path)) == 2


def test_a_cast_without_counts_is_refused(tmp_path):
    recorder, name = Recorder(tmp_path), LayerName(module="a.b", layer=None, kind="other")
    cast = ops.quantize(normal(3), "e4m3fn", Amax())
    for without in (cast, cast.flatten_rows()):
        with pytest.raises(ValueError, match=r"a\.b: a cast without counts cannot be recorded"):
            recorder.add(name, "input", without)


def of_steps(recorder: Recorder, *values: float) -> None:
    """Note one cast of a single value in each step."""
    name = LayerName(module="a.b", layer=0, kind="ffn_in")
    for step, value in enumerate(values):
        recorder.add(name, "input", ops.quantize(torch.tensor([value, 0.0]), "e4m3fn", Amax(), counts=True), step)


def test_a_tracker_gets_the_scales_of_the_last_step_even_if_they_are_written(tmp_path):
    """Oracle: by hand: 448 / 1 is 2**8 and more, 448 / 4 is 2**6 and more."""
    recorder = Recorder(tmp_path)
    assert recorder.scalars() == {}
    of_steps(recorder, 1.0, 4.0)
    recorder.flush()
    zeros = {"saturated/input/ffn_in": 0.0, "flushed/input/ffn_in": 0.0}
    assert recorder.scalars() == {"scale_bias/input/ffn_in": 6.0, **zeros}


def test_steps_that_will_be_done_again_are_dropped(tmp_path):
    """Oracle: three parts: before the step, across it, after it."""
    recorder = Recorder(tmp_path)
    of_steps(recorder, 1.0)
    recorder.flush()
    of_steps(recorder, 1.0, 1.0, 1.0)
    recorder.flush()
    cast = ops.quantize(normal(3), "e5m2", Amax(), counts=True)
    recorder.add(LayerName(module="c", layer=0, kind="other"), "input", cast, step=2)
    recorder.flush()
    drop_scales(tmp_path, 2)
    assert read_scales(tmp_path)["step"].to_list() == [0, 0, 1]
    assert parts(tmp_path) == ["part-000000.parquet", "part-000001.parquet"]


def test_the_header_says_how_the_run_was_made(tmp_path):
    with record(model(Recipe.cscale(2)), tmp_path):
        pass
    header = json.loads((tmp_path / "run.json").read_text())
    assert header["recipe"] == "cscale:2"
    assert {"command", "started", "versions", "backend", "reason", "device", "threads", "seed"} <= header.keys()
    assert header["versions"]["torch"] == torch.__version__


def test_an_existing_run_keeps_its_header(tmp_path):
    RunFolder.create(tmp_path, {"mine": 1})
    before = (tmp_path / "run.json").read_bytes()
    with record(model(), tmp_path):
        pass
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    network = model()
    with pytest.raises(FileExistsError, match="not a run"), record(network, tmp_path):
        pass
    assert recorders(network) == [None]


def test_a_run_without_rows_has_no_scales(tmp_path):
    with record(model(), tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match="holds no scales: nothing was recorded there"):
        read_scales(tmp_path)


# The files


def test_a_second_recorder_goes_on_with_the_next_part(tmp_path):
    network = model()
    for phase in ("first", "second"):
        with record(network, tmp_path, phase=phase) as recorder:
            network(normal(4, K))
            recorder.flush()
            recorder.flush()  # nothing is waiting: no part
            network(normal(4, K))
        first = (tmp_path / "scales" / "part-000000.parquet").read_bytes()
    assert parts(tmp_path) == [f"part-{number:06d}.parquet" for number in range(4)]
    assert (tmp_path / "scales" / "part-000000.parquet").read_bytes() == first
    assert [row["phase"] for row in rows(tmp_path, role="input")] == 2 * ["first"] + 2 * ["second"]


def test_two_recorders_at_a_time_do_not_overwrite_each_other(tmp_path):
    """A teacher and a student, or the ranks of a distributed run, in one folder."""
    teacher, student = model(), model(seed=1)
    with record(teacher, tmp_path, phase="teacher"), record(student, tmp_path, phase="student"):
        teacher(normal(4, K))
        student(normal(4, K))
    assert sorted(row["phase"] for row in rows(tmp_path, role="input")) == ["student", "teacher"]


def test_rows_are_flushed_while_the_block_runs(tmp_path):
    network = model()
    with record(network, tmp_path, flush_seconds=0.0):
        network(normal(4, K))
        network(normal(4, K))
        assert len(parts(tmp_path)) >= 2
    assert [row["step"] for row in rows(tmp_path, role="input")] == [0, 1]


RECORD_FOREVER = """
import os, signal, sys
import torch
from torch import nn
from octoscale import Recipe, convert, record

renames = []

def die_before_the_fifth_rename(event, _):
    if event in ("os.rename", "os.link"):  # os.replace is audited as os.rename
        renames.append(event)
        if len(renames) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before a rename":
    sys.addaudithook(die_before_the_fifth_rename)
model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5))
convert(model, Recipe.amax())
with record(model, sys.argv[1], flush_seconds=0.05):
    while True:
        model(torch.randn(4, 6))
"""


@pytest.mark.parametrize("moment", ["at random", "before a rename"])
def test_parts_survive_a_kill(tmp_path, moment):
    """All parts are readable, no step is missing between them, and the next recorder goes on after them."""
    process = subprocess.Popen([sys.executable, "-c", RECORD_FOREVER, str(tmp_path), moment])
    try:
        deadline = time.monotonic() + 100
        while len(parts(tmp_path)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if moment == "at random":
            time.sleep(random.uniform(0.0, 0.1))
            process.kill()
        assert process.wait(timeout=100) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()

    before = parts(tmp_path)
    assert before == [f"part-{number:06d}.parquet" for number in range(len(before))]
    steps = []
    for part in before:
        frame = pl.read_parquet(tmp_path / "scales" / part)
        assert frame.schema == pl.Schema(SCHEMA)
        steps += frame.filter(pl.col("role") == "input")["step"].to_list()
    assert steps == list(range(len(steps)))
    if moment == "before a rename":
        left = [path.name for path in (tmp_path / "scales").iterdir() if path.name not in before]
        assert len(left) == 1  # the fifth file (after run.json and three parts), whole but not renamed
        assert len(before) == 3
    network = model()
    with record(network, tmp_path, phase="afterwards"):
        network(normal(4, K))
    assert parts(tmp_path) == [*before, f"part-{len(before):06d}.parquet"]
    assert len(rows(tmp_path, role="input")) == len(steps) + 1


@contextmanager
def file_size_limit(num_bytes: int):
    """A disk that is full after `num_bytes` of a file: EFBIG, as Python ignores the signal SIGXFSZ."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_rename():
    """A disk that is full when the file is given its name."""

    def fail(self, target):
        raise OSError(28, os.strerror(28))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        yield


FULL_DISKS = {
    "write": lambda: file_size_limit(1000),
    "rename": no_rename,
}


@pytest.mark.parametrize("full", FULL_DISKS.values(), ids=FULL_DISKS)
def test_a_full_disk_loses_nothing(tmp_path, full):
    """The flush fails; what was written stays, nothing half-written appears, and the rows wait for the next flush."""
    network = model()
    with record(network, tmp_path) as recorder:
        network(normal(4, K))
        recorder.flush()
        (part,) = (tmp_path / "scales").iterdir()
        written = part.read_bytes()
        network(normal(4, K))
        with full(), pytest.raises(OSError, match=r"No space left|File too large"):
            recorder.flush()
        assert list((tmp_path / "scales").iterdir()) == [part]
        assert part.read_bytes() == written
        assert len(rows(tmp_path, role="input")) == 1
    assert [row["step"] for row in rows(tmp_path, role="input")] == [0, 1]  # there was room again at the end


def test_a_full_disk_at_the_end_detaches_the_recorder(tmp_path):
    network = model()
    RunFolder.create(tmp_path, {})
    with pytest.raises(OSError, match="No space left"), no_rename(), record(network, tmp_path):
        network(normal(4, K))
    assert recorders(network) == [None]
    assert not list((tmp_path / "scales").iterdir())
