"""Where models come from, what they read, and checkpoints made of them. transformers builds and loads them all.

    loading         a MODEL argument, resolved and loaded
    stored          what a folder in FP8 holds, for inspect
    meeting         what ranks do before they load one model together
    sizes           the paper's sizes and ours, as data
    package_index   pretrained models that the package index carries
    architectures   which class a checkpoint is, and whether it predicts the next token
    tokenizer       the tokenizer of a folder, read with care
    generation_settings     generation_config.json, likewise
    settings        what a checkpoint of random weights is to be
    fingerprint     which weights a model has, as a short text
    quiet           transformers without bars and warnings, for a block
    not_finite      which of a model's own numbers is infinity or NaN
    errors          what reading a broken checkpoint raises, and the one line of it
    texts           texts, their windows, and what a model can take of them
    questions       multiple-choice questions, and whether a model can be asked them
    labels          texts with a label
    classifier_ids  what a classifier reads of them
    hub             data sets of the Hugging Face Hub
    export          the command quantize, from its words to the folder
    simulated       a model without weights that runs, on fake tensors
    materialize     a checkpoint of random FP8 weights

A new named model is a row in sizes.py or package_index.py.
"""
