"""What a run says, read from its files and from nothing else: figures, and tables for the terminal.

    fields              what a field of a run's files may hold
    contents            what can be read of a run, and what is damaged
    data                numbers of the figures of a validation
    training_data       numbers of the figures of a training
    style               colors, lines, names, sizes, small print
    perplexity          the figure of perplexities by constant scale
    bias_map            the figure of pairs of constant scales
    scale_bias          the figure of each layer's scale
    exponents           the figure of one module's exponents
    clipping            the figure of what saturates or is flushed, by layer
    training_figures    the figures of trainings
    figures             which figures a run has, and drawing them all
    advice              an advice as tables, and as a page
    advice_figure       the figure of what FP8 costs each layer
    paper_figures       the paper's figures, from what reproduce wrote
    paper_page          its page, with all tables and figures
    terminal            tables and progress bars
    tasks_table         what scalings reached on tasks
    page/               one page in which a run can be explored: in a file, or served while the run goes on
    showing             a run on the terminal, measured and damaged parts, then its figures and its page

A figure is two functions: its numbers in a file of data, its drawing in a file of its own. No model is loaded here.
"""
