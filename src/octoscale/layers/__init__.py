"""The layers that replace a model's linear ones. The method of the paper is in linear.py, its three products first.

    linear          Fp8Linear: output, grad_input and grad_weight from FP8 codes
    state           how a layer casts its operands, and what it remembers
    reuse           what has not changed need not be computed again
    ranks           what a layer asks other ranks for
    part_linear     a part of a layer in high precision, for inference
    trained_part    the same in a training
    gathered        a weight that arrives as codes, of which each rank has cast its part
    origin          what a layer was before: torch's, or GPT-2's Conv1D
    compiled        the same products for torch.compile and torch.export
    bf16_gemm       plain bfloat16 layers by way of float32, on CPUs without bfloat16 dot products
    layouts         names, shapes and config words of FP8 checkpoints: a key of a checkpoint is named here
    schemes         what a checkpoint says of a layer: how far a scale reaches, its input
    factor          a scale of a file as a power of two and a factor
    compiled_stored the products of such a layer for torch.compile and torch.export
    stored          StoredLinear: a layer whose weight is codes already
    runs            its product where blocks have factors

Layers get their casts from kernels/ and their scales from numerics/; they know no model and no file.
"""
