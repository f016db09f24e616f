"""The one exception that a person is meant to read."""


class UserError(Exception):
    """One sentence that says what is wrong and what to do; the command line exits with 2."""
