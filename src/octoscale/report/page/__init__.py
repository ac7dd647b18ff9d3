"""One page in which a run can be explored: written to a file that needs nothing else, or served while the run goes on.

    cells        millions of rows summed into cells, tensors by bins of steps, in one pass
    ranks        how far apart the ranks of a training are, beside the cells
    waterfall    the histograms of exponents, thinned out the same way
    scales       both as columns of the page
    columns      columns as base64 of deflated typed arrays
    series       losses and rates over steps
    results      what the run reached, in texts
    findings     what was found, in words
    state        whether the run goes on
    folder       a run's folder, read part by part, and again when it grows
    write        the page from all of it
    server       the page of a run that goes on, on loopback
    assets/      the page itself: HTML, CSS, JavaScript, and uPlot

In assets/, `decode.js` is the other half of columns.py, and `main.js` says how the rest fits together.
"""
