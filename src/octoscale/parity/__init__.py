"""What will a GPU's sums do to a model? They are imitated on a CPU, beside float32's and exact ones.

    settings        the words and defaults of parity
    run             from the words to the run folder
    ways            the ways in which one product may be summed
    products        the products of a model's layers as it reads a text: operands in FP8, and what they were cast from
    differences     how far the sums of one way lie from float32's and from exact ones, and beside the casts' error
    lengths         the same of made operands, by the length of a sum
    words           a parity in words, and as JSON

How tensor cores sum is data, numerics/accumulators.py; what is measured under them otherwise stands in validation/.
"""
