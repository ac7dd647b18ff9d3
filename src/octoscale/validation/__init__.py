"""Does a model survive FP8? The same question under several scalings, each recorded.

    settings        the words and defaults of validate, sweep and demo
    run             from the words to the run folder
    scalings        the model under each scaling in turn, recorded
    one_scaling     the model under one of them
    perplexity      what is measured of it: the perplexity of a text
    tasks           and its share of right answers to tasks, TaskScore
    choice          which tasks a validation asks, of which kind of model
    harness         tasks of lm-eval, and files of questions
    harness_model   the models that lm-eval asks, and `lm_eval --model octoscale`
    lm_eval_name    how lm-eval learns that name
    classes         labeled texts, of a classifier
    by_layer        all windows through one layer before the next is read
    scores          what the scalings reached, as summary.json holds it
    bias_range      the range of constant biases that a model survives

A new measure of a model stands beside perplexity.py; a new kind of task offers what `Tasks` in tasks.py says.
"""
