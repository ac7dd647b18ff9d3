"""What each size of the paper needs: the exact commands, and an estimate of their memory and time.

    python experiments/plan.py            prints the tables that stand in experiments/README.md

N is the number of parameters, L that of the weights which go to FP8, both counted from the model's config. Only the
rate of two cores is measured; everything else is arithmetic, and so an estimate:

    memory, inference      2 N + L bytes: the parameters in 16 bits, and FP8 codes beside them
    memory, fine-tuning    16 N + L bytes (float32 parameters, gradients, two moments; codes), and activations:
                           34 bytes * tokens in a micro-batch * d_model * layers (Korthikanti et al. 2022, without
                           recomputation, the attention's own left out)
    time                   2 N operations a token to ask, 6 N to fine-tune, divided by a rate
"""

from octoscale.models.loading import skeleton
from octoscale.models.sizes import PAPER_SIZES, sizes_with_weights
from octoscale.paper.numbers import EPOCHS, GPT_SIZES, LLAMA_SIZES, TRAINING_EXAMPLES
from octoscale.training.settings import PAPER_ROWS

#: Operations a second. Measured: the demo's 8,192 tokens of SmolLM2-135M (134.5 M parameters) take 10.1 s in bf16 on
#: two cores with AVX-512 (docs/LOG.md, 2026-11-24, the demo in 3 min 15 s). Assumed: 40 % of the 989 TFLOP/s that
#: NVIDIA states for bf16 on an H100.
CORES = 2 * 134.5e6 * 8192 / 10.1
GPU = 0.4 * 989e12

#: Items that are asked, and tokens that this reads: items * choices * tokens of a request, the last a rough mean.
ASKED_LLAMA = {
    "mmlu": 14_042 * 4 * 700,
    "hellaswag": 10_042 * 4 * 90,
    "arc_easy": 2_376 * 4 * 30,
    "arc_challenge": 1_172 * 4 * 35,
    "piqa": 1_838 * 2 * 35,
    "winogrande": 1_267 * 2 * 25,
}
#: Items of the parts for validation; each is cut off at the paper's sequence length, which bounds its tokens.
ASKED_GPT = {"mnli": 9_815, "qqp": 40_430, "sst2": 872}

#: Examples in a micro-batch; trainings and askings of a task with one seed, as reproduce does them. Table 6 bisects: 7
#: of the 15 biases, about.
MICRO_BATCH = 8
TRAININGS = {"tables 2, 3, fig 5": 1, "table 5": 2, "table 6": 8}
ASKINGS = {"tables 2, 3, fig 5": 17, "table 5": 2, "table 6": 8}

DAY = 86_400
GPT_COMMAND = (
    "octoscale reproduce table2,table3,table5,table6,fig5 --model {} --pretrained --preset paper --out runs/paper"
)
LLAMA_COMMAND = "octoscale reproduce table4,fig6 --model {} --pretrained --dtype fp16 --formats fnuz --out runs/llama"


def main() -> None:
    """Print both tables."""
    print(table_of_llama())
    print()
    print(table_of_gpt())


def table_of_llama() -> str:
    """A row a size of Llama 2."""
    lines = ["| model | N | memory | operations | two cores | an H100 | command |", "|---|--:|--:|--:|--:|--:|---|"]
    for size in LLAMA_SIZES:
        n, codes = counted(size)
        work = 2 * 2 * n * sum(ASKED_LLAMA.values())  # high precision and amax
        memory = f"{(2 * n + codes) / 1e9:,.1f} GB"
        command = LLAMA_COMMAND.format(size)
        lines.append(f"| {size} | {n / 1e9:.2f} B | {memory} | {work:.1e} | {times(work)} | `{command}` |")
    return "\n".join(lines)


def table_of_gpt() -> str:
    """A row a size of GPT and a set of tables, of all three tasks with one seed."""
    head = "| model | N | memory: ask | fine-tune | what | operations | two cores | an H100 |"
    lines = [head, "|---|--:|--:|--:|---|--:|--:|--:|"]
    for size, row in zip(GPT_SIZES, PAPER_ROWS, strict=True):
        n, codes = counted(size)
        shape = PAPER_SIZES[size]
        activations = 34 * MICRO_BATCH * row.window * shape.d_model * shape.num_layers
        ask, tune = (2 * n + codes) / 1e9, (16 * n + codes + activations) / 1e9
        examples = sum(TRAINING_EXAMPLES.values()) * EPOCHS * row.window
        for what, trainings in TRAININGS.items():
            asked = sum(ASKED_GPT.values()) * row.window * ASKINGS[what]
            work = 6 * n * examples * trainings + 2 * n * asked
            lines.append(
                f"| {size} | {n / 1e9:.2f} B | {ask:,.1f} GB | {tune:,.1f} GB | {what} | {work:.1e} | {times(work)} |"
            )
    return "\n".join(lines)


def counted(size: str) -> tuple[int, int]:
    """The parameters of a size, and those that go to FP8."""
    weights = {row["name"]: row["linear_weights"] for row in sizes_with_weights()}
    return sum(parameter.numel() for parameter in skeleton(size).parameters()), weights[size]


def times(work: float) -> str:
    """Two places: on the two cores, and on a GPU."""
    return " | ".join(lasting(work / rate) for rate in (CORES, GPU))


def lasting(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("years", 365 * DAY), ("days", DAY), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(1, seconds / 60):,.0f} minutes"


if __name__ == "__main__":
    main()
