"""Does a model survive FP8? The same question under several scalings, each recorded.

    settings        the words and defaults of validate, sweep and demo
    run             from the words to the run folder
    evaluate        perplexity and accuracy under each scaling
    layerwise       all windows through one layer before the next is read
    sweep           the range of constant biases that a model survives

A new measure of a model stands beside perplexity in evaluate.py.
"""
