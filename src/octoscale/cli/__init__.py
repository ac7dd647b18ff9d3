"""The command line: each command reads its settings, makes one call into the rooms below, and prints.

    options         a command's options are the fields of its settings
    app             the application and its help: the commands by what they are for
    look            info, formats, models, inspect, diagnose, report, figures, watch, docs
    measure         demo, validate, sweep
    advise          advise
    parity          parity
    arena           scalings against each other
    reproduce       the tables and figures of the paper
    bench           the commands of octoscale bench
    train           train
    plan            plan
    ship            quantize, generate, chat
    output          what a command prints, where its run goes, how Ctrl-C ends it
    main            the entry point

A command holds no idea of its own: what it does can be called from Python. A new option is a field of its settings.
"""
