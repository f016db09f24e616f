"""The exceptions whose text a user reads."""

import os


class UserError(Exception):
    """An error of one sentence, what is wrong and what to do; the command line exits with 2."""


class OptionError(UserError):
    """A value of the command line, such as a recipe, that only another value mends."""


class PromptError(UserError):
    """A prompt that only another one mends, or reading it without its chat template."""


def reason(error: OSError) -> str:
    """The operating system's text for an error, without the path."""
    return os.strerror(error.errno) if error.errno else str(error)
