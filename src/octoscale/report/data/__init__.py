"""The numbers that figures show: small functions from the rows of a run to what is drawn, and no drawing.

    validation      of a validation or sweep: scores, shares that are lost, which scaling and module to show
    histograms      what is asked of the histograms of exponents, which are most of the bytes of a run
    paired_losses   how far perplexities lie above a reference's, with the noise of the text
    bands           tensors that have several scales, in words
    training        of a training: scales and losses by step, and what tells runs apart

Each can be checked by hand against a table of a few rows, which pictures cannot.
"""
