"""What a number is in FP8, and which scale it gets. The scale of a tensor is chosen in scaling.py, and nowhere else.

    formats         the four formats, each one row of data; the words for precisions without FP8
    reference       the oracle: exact encode, decode and round, one number at a time
    scaling         from the largest magnitude of a tensor to its scale_bias: FP8-AMAX, FP8-CSCALE, delayed
    granularity     over which values one scale reaches
    accumulators    how tensor cores sum products, as rows of data; the oracle of csrc/accumulate
    recipe          which format and rule each role gets, and which modules stay as they are; how a scaling is written
    recipe_file     a recipe as a file

A format or a rule is added here and works in every room above. Numbers are stated once: other files ask for them.
"""
