"""Casts and products, fast and exact: one waist, ops.py, and a backend below it for each kind of machine.

    ops             quantize, dequantize, matmul: what every other room calls
    quantized       Quantized, codes with their scale_bias, and what a cast saw
    table           which backend serves a device, and why
    base            what a backend must offer, and what it reports of a tensor: amax and counts are made by backends
    groups          scales for rows, blocks and 32 values: the amax of each, its scale over its values, products
    scaled_mm       the tensor cores of GPUs, by torch._scaled_mm
    triton_cast     their casts where Triton is; portable's are theirs elsewhere
    triton_kernel   what it runs on the device, in integers alone
    portable        plain torch: every format, every device, bit for bit
    shapes          nothing but shapes and working memory: for a plan, on fake tensors
    native          the C++ core (csrc/), by instruction set
    operators       the core's operations for torch.compile
    eager           whether a tensor has an address to hand to a kernel
    decoder         a decoder layer's step in one call of the core

A new backend, of CUDA kernels say, is a file beside portable.py that does what base.py says, and a row in table.py;
tests/kernels holds each to the bits of numerics/reference.py.
"""
