"""Does a model survive FP8? The same question under several scalings, each recorded.

    settings        the words and defaults of validate, sweep and demo
    run             from the words to the run folder
    scalings        the model under each scaling in turn, recorded
    perplexity      what is measured of it: perplexity of a text, accuracy on questions
    by_layer        all windows through one layer before the next is read
    scores          what the scalings reached, as summary.json holds it
    bias_range      the range of constant biases that a model survives

A new measure of a model stands beside perplexity in perplexity.py.
"""
