"""FP8 models on many ranks of torch.distributed: whatever torch does there, with codes instead of values.

    groups      the largest amax of several ranks
    part        this rank's part of a weight: looked at by itself, cast with the scale of the whole weight
    shard       FSDP2 for a converted model

Meshes, process groups, sharding and checkpoints are torch's. What stands here is what FP8 needs between them.
"""
