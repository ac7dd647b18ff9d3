"""How fast: beside what else there is, in turns in one process, and beside the machine's limits.

    kernels         casts and products; how times are taken
    train           a training step
    growth          larger layers, and more ranks
    generate        writing and reading
    checkpoint      a checkpoint to FP8, beside cp
    gguf_shape      a Llama as a GGUF file, for llama.cpp's own measurement
    advise          how well advise chooses

Numbers that README and docs quote are printed by these commands.
"""
