"""The C++ core (csrc/bindings.cpp). Addresses are ints; 0 stands for nothing. Nothing is checked here."""

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
