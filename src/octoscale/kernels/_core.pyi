"""The C++ core (csrc/bindings). Addresses are ints; 0 stands for nothing. Nothing is checked here."""

from collections.abc import Sequence
from typing import TypeAlias

def isas() -> list[str]: ...
def formats() -> list[tuple[str, int, int, int, float, int]]: ...
def use_pool(gomp_parallel: int, get_thread_num: int, get_num_threads: int, /) -> None: ...
def observe(
    isa: int,
    x: int,
    dtype: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    exponents: int,
    num_threads: int,
    /,
) -> float: ...
def encode(
    isa: int,
    x: int,
    dtype: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    amax: float,
    format: int,
    scale_bias: int,
    codes: int,
    values: int,
    counts: int,
    num_threads: int,
    /,
) -> None: ...
def cast(
    isa: int,
    x: int,
    dtype: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    format: int,
    scale_bias: int,
    codes: int,
    values: int,
    counts: int,
    exponents: int,
    num_threads: int,
    /,
) -> float: ...
def cast_groups(
    isa: int,
    x: int,
    dtype: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    group_rows: int,
    group_cols: int,
    format: int,
    margin: int,
    down: bool,
    amaxes: int,
    scale_biases: int,
    codes: int,
    counts: int,
    num_threads: int,
    /,
) -> None: ...
def decode(
    isa: int,
    codes: int,
    format: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    scale_bias: int,
    out: int,
    dtype: int,
    num_threads: int,
    /,
) -> None: ...
def decode_groups(
    isa: int,
    codes: int,
    format: int,
    num_rows: int,
    num_cols: int,
    row_stride: int,
    group_rows: int,
    group_cols: int,
    scale_biases: int,
    out: int,
    dtype: int,
    num_threads: int,
    /,
) -> None: ...
def matmul(
    isa: int,
    a: int,
    a_kind: int,
    a_row_stride: int,
    a_col_stride: int,
    b: int,
    b_kind: int,
    b_row_stride: int,
    b_col_stride: int,
    m: int,
    k: int,
    n: int,
    scale_bias: int,
    bias: int,
    bias_dtype: int,
    out: int,
    dtype: int,
    num_threads: int,
    /,
) -> bool: ...
def matmul_by_rows(
    isa: int,
    a: int,
    a_kind: int,
    a_row_stride: int,
    a_col_stride: int,
    b: int,
    b_kind: int,
    b_row_stride: int,
    b_col_stride: int,
    m: int,
    k: int,
    n: int,
    a_inner: tuple[int, int, int, int, int],
    b_inner: tuple[int, int, int, int, int],
    row_biases: int,
    col_biases: int,
    bias: int,
    bias_dtype: int,
    out: int,
    dtype: int,
    num_threads: int,
    /,
) -> bool: ...
def accumulate(
    isa: int,
    block: int,
    fraction: int,
    kept: int,
    floor: int,
    joined: int,
    chain: int,
    a: int,
    a_format: int,
    a_row_stride: int,
    a_col_stride: int,
    b: int,
    b_format: int,
    b_row_stride: int,
    b_col_stride: int,
    m: int,
    k: int,
    n: int,
    out: int,
    num_threads: int,
    /,
) -> None: ...
def scale_bias(amax: float, format: int, margin: int, down: bool, /) -> int: ...
def serves_rows(isa: int, /) -> bool: ...
def rms_norm(isa: int, x: int, num_rows: int, n: int, weight: int, epsilon: float, out: int, /) -> None: ...
def step_through(
    isa: int,
    layers: Sequence[DecoderLayer],
    caches: Sequence[tuple[int, int, int, int]],
    x: int,
    cosines: int,
    sines: int,
    out: int,
    num_threads: int,
    /,
) -> int: ...

#: How far its scales reach, scale_bias and factor of all, addresses of those of each; the kind of a rule, its format,
#: value and divisor; of a linear layer codes, format, scales, inputs, outputs, rule.
ScaleFacts: TypeAlias = tuple[int, int, float, int, int]
RuleFacts: TypeAlias = tuple[int, int, int, float]
LinearFacts: TypeAlias = tuple[int, int, ScaleFacts, int, int, RuleFacts]

class DecoderLayer:
    def __init__(
        self,
        heads: tuple[int, int, int],
        attention_scale: float,
        norm1: tuple[int, float],
        norm2: tuple[int, float],
        linears: list[LinearFacts],
        /,
    ) -> None: ...
    def step(
        self,
        isa: int,
        x: int,
        num_rows: int,
        cosines: int,
        sines: int,
        keys: int,
        values: int,
        head_stride: int,
        length: int,
        out: int,
        num_threads: int,
        /,
    ) -> int: ...
