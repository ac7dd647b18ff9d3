"""How fast the portable backend is, side by side with what torch offers, and the limit: ./dev bench [--json].

Each row alternates its candidates in one process and reports medians; ratios carry over to other machines, absolute
numbers do not. Nothing else should run meanwhile.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from octoscale import Amax, matmul, quantize
from octoscale.backends import choose
from octoscale.bf16_gemm import bf16_through_float32

ROUNDS = 15


def main() -> None:
    """Measure, and print a table or JSON."""
    torch.manual_seed(0)
    rows = {"decode": decode(), "quantize": cast(), "linear": linear()}
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=2))
        return
    print(f"{choose('cpu').name}: {choose('cpu').reason}")
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))


def decode() -> dict[str, float]:
    """E4 codes to float32, G values/s: torch's cast against ours."""
    weight = quantize(torch.randn(1536, 576), "e4m3fn", Amax())
    torch_s, ours_s = alternate(lambda: weight.codes.float(), lambda: weight.dequantize(torch.float32))
    size = weight.codes.numel() / 1e9
    return {"torch_G_per_s": size / torch_s, "ours_G_per_s": size / ours_s, "speedup": torch_s / ours_s}


def cast() -> dict[str, float]:
    """bfloat16 to E4 under amax, G values/s: abs, amax, multiply, clamp and cast in torch; ours; with counts."""
    x = torch.randn(512, 1536).bfloat16()

    def plain() -> torch.Tensor:
        scale = 448.0 / x.abs().amax()
        return (x * scale).clamp(-448, 448).to(torch.float8_e4m3fn)

    def counted() -> object:
        return quantize(x, "e4m3fn", Amax(), counts=True)

    times = alternate(plain, lambda: quantize(x, "e4m3fn", Amax()), counted)
    size = x.numel() / 1e9
    return dict(zip(("torch_G_per_s", "ours_G_per_s", "with_counts_G_per_s"), (size / t for t in times), strict=True))


def linear() -> dict[str, float]:
    """512 rows, 576 -> 1536, GFLOP/s: torch in bfloat16, the same by way of float32, ours on FP8 codes."""
    x, weight = torch.randn(512, 576).bfloat16(), torch.nn.Linear(576, 1536, bias=False).bfloat16()
    x8, w8 = quantize(x, "e4m3fn", Amax()), quantize(weight.weight, "e4m3fn", Amax())

    def widened() -> torch.Tensor:
        with bf16_through_float32(weight):
            return weight(x)

    with torch.no_grad():
        times = alternate(
            lambda: functional.linear(x, weight.weight), widened, lambda: matmul(x8, w8.t(), dtype=torch.bfloat16)
        )
    names = ("torch_bf16_GFLOPS", "through_float32_GFLOPS", "ours_fp8_GFLOPS")
    return dict(zip(names, (2e-9 * 512 * 576 * 1536 / t for t in times), strict=True))


def alternate(*candidates: Callable[[], object]) -> list[float]:
    """The median seconds of each candidate, run in turns."""
    times: list[list[float]] = [[] for _ in candidates]
    for _ in range(ROUNDS + 1):
        for index, candidate in enumerate(candidates):
            start = time.perf_counter()
            candidate()
            times[index].append(time.perf_counter() - start)
    return [statistics.median(values[1:]) for values in times]


if __name__ == "__main__":
    main()
