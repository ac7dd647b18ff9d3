"""UserError: what was given, or what a file holds, is wrong, and its user can mend it.

    raise UserError(f"a window of {window} tokens is longer than the model's {limit} positions: lower --window")

The message says value, rule and remedy in the user's words; a layer or a file is named. The command line prints it as
one line and ends with exit code 2 (explained.py). From Python it is a ValueError like any other. What is not a
UserError, and not the machine's own refusal, is a defect of ours, and shows where it came from.
"""


class UserError(ValueError):
    """Something that a user can mend, in the user's words."""
