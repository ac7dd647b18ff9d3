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
    paired          by how much two scalings differ on the same items, with an interval
    criterion       what it means to survive: that difference against a bound, beyond noise
    bias_range      the range of constant biases that a model survives
    role_map        the same for pairs of biases, one for weights and one for inputs
    edges           the ends of a plateau, by few looks
    kept            scores that are kept as they come, so that a command goes on after a kill
    run_sweep       from the words of a sweep to its run folder

A new measure of a model stands beside perplexity.py, and what of it is compared item by item in criterion.py; a new
kind of task offers what `Tasks` in tasks.py says.
"""
