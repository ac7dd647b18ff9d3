"""What a run says, read from its files and from nothing else: figures, and tables for the terminal.

    contents            what can be read of a run, and what is damaged
    data                numbers of the figures of a validation
    training_data       numbers of the figures of a training
    style               colors, lines, names, sizes, small print
    figures             the figures of a validation, and which there are: a new one is drawn here
    exponents           the figure of one module's exponents
    training_figures    the figures of trainings
    terminal            tables and progress bars
    showing             a run on the terminal, measured and damaged parts, then its figures

A figure is two functions: its numbers in a file of data, its drawing in a file of figures. No model is loaded here.
"""
