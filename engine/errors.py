"""The one exception that a person is meant to read."""

import os


class UserError(Exception):
    """One sentence that says what is wrong and what to do; the command line exits with 2."""


def reason(error: OSError) -> str:
    """Why the operating system refused, in its words, without the path."""
    return os.strerror(error.errno) if error.errno else str(error)
