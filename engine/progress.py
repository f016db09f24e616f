"""What long work reports to a front end."""

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""Called with what is being done and the fraction that is done, None where that is unknown."""

IMPORTING = "importing torch and transformers"
