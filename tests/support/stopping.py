"""A command that is stopped in the middle, as Ctrl-C stops it."""


def stopped_after(count):
    """Progress that ends the command when it is told of for the n-th time."""
    seen = []

    def progress(*_):
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt

    return progress
