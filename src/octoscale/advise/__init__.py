"""What does FP8 cost a model, where, and which layers should stay out of it?

    settings        the words and defaults of advise
    run             from the words to the run folder
    findings        what is found: costs, the list of layers to keep, and what it is worth beside others
    cost            what a change costs, window by window, with an interval
    estimate        what FP8 costs at each layer, from one backward pass
    keeping         the shortest list of layers to keep
    kept            what passes found, as it is kept for a command that goes on after a kill
    rankings        orders in which people keep layers
    alternatives    other scalings
    outliers        layers whose scale lies far from that of their kind
    words           an advice in words, and as JSON

What is measured of a model under a scaling stands in validation/; here is what a choice of layers is worth.
"""
