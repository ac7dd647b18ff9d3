"""Does a model survive FP8? The same question under several scalings, each recorded.

    settings        the words and defaults of validate, sweep and demo
    run             from the words to the run folder
    scalings        the model under each scaling in turn, recorded
    perplexity      what is measured of it: perplexity of a text, accuracy on questions
    by_layer        all windows through one layer before the next is read
    scores          what the scalings reached, as summary.json holds it
    bias_range      the range of constant biases that a model survives
    advise_settings the words and defaults of advise
    advise_run      from the words to the advice
    advise          what FP8 costs a model, where, and which layers should stay out of it
    cost            what a change costs, window by window, with an interval
    estimate        what FP8 costs at each layer, from one backward pass
    keeping         the shortest list of layers to keep
    rankings        orders in which people keep layers
    alternatives    other scalings
    outliers        layers whose scale lies far from that of their kind
    advise_words    an advice in words, and as JSON

A new measure of a model stands beside perplexity in perplexity.py.
"""
