"""FP8 models on many ranks of torch.distributed: whatever torch does there, with codes instead of values.

    mesh                the words of --parallel, and the ranks that meet
    roll_call           which rank is gone
    groups              the largest amax of several ranks
    part                this rank's part of a weight: looked at by itself, cast with the scale of the whole weight
    shard               FSDP2 for a converted model
    tensor_parallel     layers in parts, and the sums of their products
    cut                 of a tensor, what one rank holds
    read_parts          for training: a rank reads of each parameter what it will hold
    held_parts          for inference: a rank has its part of each weight from the beginning
    run_folder          a run's folder that several ranks write to
    norm                the norm of gradients that are in parts
    checkpoint          parameters and optimizer, for any other number of ranks
    watch               what a step holds and moves, operation by operation
    plan                what one rank of a large run would hold and move: a step of it on fake tensors

Meshes, process groups, sharding and checkpoints are torch's. What stands here is what FP8 needs between them.
"""
