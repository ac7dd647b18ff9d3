"""How to start the paper's sizes on GPUs of 80 GB: the mesh that each needs, and the lines that launch it.

    python experiments/launch.py --plan      plan all sizes again (minutes), into docs/plans.json; then as without it
    python experiments/launch.py             docs/PLAN.md, experiments/README.md and experiments/launch/, from that file

A plan is what `octoscale plan SIZE --gpus 512 --memory 80GB --json` prints. A machine has 8 GPUs.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from octoscale.models.sizes import PAPER_SIZES
from octoscale.training.plan import plan
from octoscale.training.planning import Planning

ROOT = Path(__file__).resolve().parent.parent
PLANS = ROOT / "docs" / "plans.json"
GPUS, MEMORY, MACHINE = 512, "80GB", 8

#: Those with lines to launch them.
LAUNCHED = ("gpt-1.3b", "gpt-6.7b", "gpt-13b", "llama2-7b", "llama2-70b")

TRAIN = (
    "octoscale train {size} --pretrained --text my.txt --window {seq} --batch {batch} --accumulate {accumulate}"
    "{parallel} --out runs/{size}"
)


def main() -> None:
    """Write all that is made of the plans."""
    if "--plan" in sys.argv[1:]:
        PLANS.write_text(json.dumps({size: planned(size) for size in PAPER_SIZES}, indent=1) + "\n", encoding="utf-8")
    plans = json.loads(PLANS.read_text(encoding="utf-8"))
    for name, text in files(plans).items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(text, encoding="utf-8")


def planned(size: str) -> dict[str, Any]:
    """The plan of a size."""
    return plan(Planning(model=size, gpus=GPUS, memory=MEMORY))


def files(plans: dict[str, Any]) -> dict[str, str]:
    """Name -> content, of documents with their blocks made anew, and of what launches each size."""
    blocks = {"plans": table(plans), "launch": lines(plans)}
    found = {}
    for name in ("docs/PLAN.md", "experiments/README.md"):
        mark = re.compile(r"(<!-- (plans|launch): [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        text = (ROOT / name).read_text(encoding="utf-8")
        found[name] = mark.sub(lambda block: f"{block[1]}{blocks[block[2]]}\n{block[3]}", text)
    for size in LAUNCHED:
        found[f"experiments/launch/{size}.yaml"] = accelerate_config(plans[size])
        found[f"experiments/launch/{size}.sbatch"] = sbatch(plans[size])
    return found


def table(plans: dict[str, Any]) -> str:
    """A row a size: its mesh, and GB a rank, in FP8-AMAX and in bf16 on as many ranks."""
    rows = ("parameters", "casts", "gradients", "optimizer", "activations", "gathered", "logits")
    head = ["size", "mesh", *rows, "peak", "sent", "bf16: casts", "bf16: activations", "bf16: peak"]
    head += ["bf16: sent", "infer", "bf16: infer"]
    found = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
    for size, of_size in plans.items():
        (_, fp8), (_, bf16) = of_size["training"].items()
        cells = [size, fp8["parallel"], *(gigabytes(fp8["bytes"][row]) for row in (*rows, "peak"))]
        cells += [gigabytes(fp8["communication"])]
        cells += [gigabytes(bf16["bytes"][row]) for row in ("casts", "activations", "peak")]
        cells += [gigabytes(bf16["communication"])]
        for row in of_size["inference"].values():
            on = f" (tp={row['ranks']})" if row["ranks"] > 1 else ""
            cells.append(gigabytes(row["bytes"]["peak"]) + on)
        found.append("| " + " | ".join(cells) + " |")
    return "\n".join(found)


def lines(plans: dict[str, Any]) -> str:
    """torchrun, accelerate and SLURM for each size that is launched."""
    return "\n\n".join(lines_of(size, plans[size]) for size in LAUNCHED)


def lines_of(size: str, plan: dict[str, Any]) -> str:
    """Of one size, which has its mesh in the plan."""
    row = mesh(plan)
    command = train(plan)
    machines, each = layout(row)
    meet = "" if machines == 1 else f"--nnodes {machines} --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
    which = "" if machines == 1 else " --machine_rank N --main_process_ip HOST --main_process_port 29500"
    words = f"{size}, {row['parallel']}: {row['bytes']['peak'] / 1e9:.1f} GB a rank on {row['ranks']} of {MEMORY}"
    return "\n".join(
        [
            f"{words}{'' if machines == 1 else f', {machines} machines'}:",
            "",
            f"    torchrun {meet}--nproc-per-node {each} -m {command}",
            f"    accelerate launch --config_file experiments/launch/{size}.yaml{which} -m {command}",
            f"    sbatch experiments/launch/{size}.sbatch",
        ]
    )


def accelerate_config(plan: dict[str, Any]) -> str:
    """What `accelerate config` would write: processes alone, for octoscale shares the model itself."""
    row = mesh(plan)
    machines, _ = layout(row)
    facts = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if row["ranks"] > 1 else "'NO'",
        "mixed_precision": "'no'",
        "num_machines": machines,
        "num_processes": row["ranks"],
        "rdzv_backend": "static" if machines == 1 else "c10d",
        "same_network": "true",
    }
    return "".join(f"{name}: {value}\n" for name, value in facts.items())


def sbatch(plan: dict[str, Any]) -> str:
    """A job of SLURM, with one torchrun on each machine."""
    row = mesh(plan)
    machines, each = layout(row)
    meet = '--rdzv-backend c10d --rdzv-endpoint "$HOST:29500"'
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={plan['model']} --nodes={machines} --ntasks-per-node=1 --gpus-per-node={each}",
            'HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"srun torchrun --nnodes {machines} --nproc-per-node {each} {meet} \\",
            f"    -m {train(plan)} --resume",
            "",
        ]
    )


def train(plan: dict[str, Any]) -> str:
    """The command that the plan is of."""
    row = mesh(plan)
    parallel = f" --parallel {row['parallel']}" if row["ranks"] > 1 else ""
    numbers = {name: plan[name] for name in ("seq", "batch", "accumulate")}
    return TRAIN.format(size=plan["model"], parallel=parallel, **numbers)


def mesh(plan: dict[str, Any]) -> dict[str, Any]:
    """The row of the training in FP8."""
    row: dict[str, Any] = next(iter(plan["training"].values()))
    return row


def layout(row: dict[str, Any]) -> tuple[int, int]:
    """Machines, and the ranks on each."""
    return max(1, row["ranks"] // MACHINE), min(row["ranks"], MACHINE)


def gigabytes(number: float) -> str:
    """Three digits."""
    return f"{number / 1e9:,.0f}" if number >= 99.95e9 else f"{number / 1e9:.3g}"


if __name__ == "__main__":
    main()
