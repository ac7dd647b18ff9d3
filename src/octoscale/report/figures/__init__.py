"""Figures, by matplotlib: a file each, with one public function that draws it, in the styles of style.py.

    style               styles, colors, lines, names of kinds and roles, saving
    words               names in figures: as text, and cut to what fits
    parts               ticks, legends, names of axes, the words below
    perplexity          perplexities by constant scale
    bias_map            pairs of constant scales
    scale_bias          each layer's scale
    exponents           one module's exponents
    clipping            what saturates or is flushed, by layer
    scale_bias_steps    the scales of a training, by step
    loss                the losses of trainings
    advice              what FP8 costs each layer
    growth              what FP8 costs as layers and ranks grow, from octoscale bench growth
    parity              how far a tensor core's sums lie from exact ones
    parity_layers       their error beside that of the casts, by depth
    parity_lengths      the error of a sum by its length
    arena               how far scalings lie from high precision, from octoscale arena
    of_run              which figures a run has, and drawing them
    publish             some of them in a style and formats, into a folder: octoscale figures
    paper               the figures of Perez et al., from what reproduce wrote

A figure is two functions: its numbers in a file of data/, its drawing here. What it takes is what a run holds: the rows
of scales, or a part of the summary (`octoscale.load_run`).
"""
