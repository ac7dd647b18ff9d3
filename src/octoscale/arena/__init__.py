"""Scalings against each other on one model: what each costs in perplexity, or in a training's loss, in bytes and time.

    contestants     who is in the arena, as rows of data
    settings        the words and defaults of the command arena
    cost            bytes of the weights under a scaling: codes, and scales
    cell            one measurement: a text that is read, or a training, under one scaling
    ring            where measurements are made, and what became of each contestant
    words           verdicts and notes
    table           the rows of a contest, as a table
    run             from the words to the files

Cells, and how they are kept, are those of paper/; what one measures is validation/'s and training/'s.
"""
