"""Training and fine-tuning in FP8. The loop is transformers' Trainer; here it gets its parts.

    settings        the words and defaults of the command train; the paper's presets
    run             from the words to the run folder
    data            windows of a text, or labeled texts, as Trainer takes them
    first_batch     does the model learn from such texts at all?
    trainer         Trainer, with loss scales, whole checkpoints, a stop at infinity
    share           what the ranks of a training do before it begins: meet, agree, share the model
    many_ranks      Trainer, for a model that is on several of them
    callback        records a training, whoever wrote the script
    tensorboard     histograms of chosen modules, for TensorBoard
    resume          goes on with a run that was stopped
    model_state     parameters in a checkpoint, by the model's own names
    planning        the words and defaults of the command plan
    plan            from the words to what a rank holds and sends, beside the same without FP8
    meshes          the smallest mesh that fits
    trained_files   what a trained model is saved with

An optimizer or a schedule is Trainer's; a hyper-parameter of the paper is a number in settings.py.
"""
