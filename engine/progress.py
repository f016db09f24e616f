"""What long work reports to a front end."""

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with what is being done and the fraction that is done, None where that is unknown.

It may raise `Cancelled`, and again at every later call until the work has ended: what puts back the
state from before reports nothing.
"""


class Cancelled(BaseException):
    """End of work that the user has cancelled; no `except Exception` takes it for an error."""


IMPORTING = "importing torch and transformers"
