"""What a run says, read from its files and from nothing else: figures, and tables for the terminal.

    fields              what a field of a run's files may hold
    advice_contents     what can be read of an advice
    parity_contents     what can be read of a parity
    contents            what can be read of a run, and what is damaged
    paper_contents      what can be read of a reproduction's figures
    arena_contents      what can be read of a contest's table
    data/               the numbers of the figures
    figures/            the figures
    run                 a run as notebooks want it
    advice              an advice as tables, and as a page
    parity              a parity as tables
    arena_page          the figure and the page of a contest
    paper_page          the page of a reproduction, with all tables and figures
    diagnosis/          what is wrong with a run, in words: rules over its records
    plan                what a plan found, as a table and a few lines
    terminal            tables and progress bars
    tasks_table         what scalings reached on tasks
    page/               one page in which a run can be explored: in a file, or served while the run goes on
    showing             a run on the terminal, measured and damaged parts, then its figures and its page

No model is loaded here.
"""
