"""Runs of some steps, as files: what a training of two layers leaves, with numbers that are known by their formula."""

from written_runs import frame, histogram, row

from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import write_part
from octoscale.system.whole_file import write_json

FORMATS = {"weight": "e4m3fn", "input": "e4m3fn", "grad_output": "e5m2"}
PLAN = {"model": "tiny-llama", "scaling": "amax", "steps": 24, "learning_rate": 4e-05}
MODULES = (("self_attn.q_proj", "attn_qkv"), ("mlp.down_proj", "ffn_out"))


def rows_of(step, *, layers=2, scaling="amax", module="model.layers.{}.{}", **changes):
    """The rows of one step. scale_bias falls by one every eight steps; down_proj's inputs flush 10 of 100 values."""
    made = []
    for layer in range(layers):
        for name, kind in MODULES:
            for role, fmt in FORMATS.items():
                made.append(
                    row(
                        step=step,
                        phase="train",
                        scaling=scaling,
                        module=module.format(layer, name) if "{}" in module else module,
                        layer=layer,
                        kind=kind,
                        role=role,
                        format=fmt,
                        scale_bias=8 - step // 8 - layer,
                        amax=float(2 ** (step // 8 + layer)),
                        flushed=10 if (role, kind) == ("input", "ffn_out") else 0,
                        exponents=histogram({-3: 60, 0: 30}, zeros=10) if step % 4 == 0 else None,
                    )
                    | changes
                )
    return made


def stepped_run(path, steps=24, *, plan=PLAN, loss=3.0, finished=True, **changes):
    """A run of so many steps, with a loss for each."""
    run = RunFolder.create(path, {"plan": plan, "backend": "native", "reason": "a test"})
    for step in range(steps):
        run.append_metrics({"phase": "train", "scaling": plan["scaling"], "step": step + 1, "loss": loss - 0.05 * step})
    rows = [each for step in range(steps) for each in rows_of(step, scaling=plan["scaling"], **changes)]
    if rows:
        write_part(run.scales, frame(*rows))
    if finished:
        write_json(run.summary, {**plan, "validation_loss": {"before": 5.0, "after": loss - 1}})
    return run
