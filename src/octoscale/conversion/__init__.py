"""Put a model's linear layers into FP8, in place, and say of every module what was done, and why.

    convert         convert, revert, and what convert would do
    kinds           what the paper's plots call a layer, by its name
    patterns        modules by shell wildcards
    stacks          where a model keeps its decoder layers
    reasons         why a module stays out of FP8
    plain           whether it computes the plain product
    weight_reads    whether a model's own code reads its weight without calling it
    ignore          the same, in the words of others' checkpoints
    head            the head's weight in FP8, for inference
    trial           one call: did every FP8 layer take part?
    record          record what the layers do while a block runs
    settings        what every command says that puts a model into FP8
    state           what an FP8 model knows beyond its parameters

A family whose layers have other names gets them in kinds.py; a new reason to leave a layer alone goes to reasons.py.
"""
