"""The exception whose text a user reads."""

import os


class UserError(Exception):
    """An error of one sentence, what is wrong and what to do; the command line exits with 2."""


def reason(error: OSError) -> str:
    """The operating system's text for an error, without the path."""
    return os.strerror(error.errno) if error.errno else str(error)
