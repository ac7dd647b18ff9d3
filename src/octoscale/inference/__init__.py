"""Text from a model in FP8, fast on a CPU: a decoder layer's step is one call of the C++ core.

    settings        what to write with, and how
    generate        load, decode, and hand out the text as it comes
    fuse            which layers decode in one call, and why the others do not
    known_layers    what such a layer must be: transformers' own, as it is
    usual_path      what it runs through besides its modules
    decoder_layer   the forward of one layer
    backbone        of all of them
    ends            of the last norm and the head
    huge_pages      weights in huge pages

A family that decodes fast is a row in known_layers.py, with the arithmetic that kernels/decoder.py can do.
"""
