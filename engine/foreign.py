"""A guard around foreign code: its errors become a sentence, their tracebacks go to the log.

Foreign are a model's template, tokenizer, config and Python, and the libraries that run them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError
from .out_of_memory import out_of_memory

MAX_MESSAGE_LENGTH = 2000
"""The most characters of a message that are shown; the log has all of it."""

log = logging.getLogger(__name__)


@contextmanager
def foreign_code(what: str, remedy: str = "") -> Iterator[None]:
    """Raise `UserError` for an error inside: `what` failed, the whole message, and a remedy.

    `UserError`, what ends a session and errors of memory pass. A panic of Rust code is no
    `Exception`, and a model's code may call `sys.exit`.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        panicked = type(error).__name__ == "PanicException"
        if not isinstance(error, Exception | SystemExit) and not panicked:
            raise
        if out_of_memory(error):
            # Callers catch an `Exception`.
            if isinstance(error, Exception):
                raise
            raise MemoryError(message(error)) from error
        log.error("%s", what, exc_info=error)
        sentence = f"{what} ({message(error)})"
        raise UserError(f"{sentence}; {remedy}" if remedy else sentence) from error


def message(error: BaseException) -> str:
    """An exception's text in one line, or the name of its type if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        text
        if len(text) <= MAX_MESSAGE_LENGTH
        else f"{text[:MAX_MESSAGE_LENGTH]}… (all of it is in the log)"
    )
