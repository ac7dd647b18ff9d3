"""The command line: each command reads its options, makes one call into the rooms below, and prints.

    main            the commands
    asked           an option that nothing would read is an error

A command holds no idea of its own: what it does can be called from Python.
"""
