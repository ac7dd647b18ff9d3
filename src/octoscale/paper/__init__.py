"""The tables and figures of Perez et al. 2023, measured again: at any size, with one command, beside its own numbers.

    numbers         the paper's own numbers
    settings        the words and defaults of the command reproduce
    tasks           which tasks are asked, and where their data are
    cell            one measurement, by its words and its name
    kept            where cells are made, once each
    lab             whom the tables ask
    answers         what a model answered, and how two scalings compare
    write           a table as Markdown, CSV and JSON; a figure's numbers
    rows            what the rows of several tables have in common
    swept           what Tables 2 and 3 and Figure 5 share
    table2          what FP8 costs GPT in inference
    table3          which constant biases pass there
    table4          what FP8 costs Llama in inference
    table5          what FP8 costs in fine-tuning
    table6          which constant biases pass there
    fig5            accuracy against the constant bias
    fig6            the scales of inference, by layer
    fig789          the scales of fine-tuning, by step
    fig10           the losses of fine-tuning
    reproduce       from the words to the files

A table asks the lab for answers and makes rows of them: it can be read without the rest. Nothing here draws, or knows
how a measurement is made: report/figures/paper.py draws, validation/ and training/ measure.
"""
