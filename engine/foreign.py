"""Code that is not ours: a model's template, tokenizer, config or Python, and the libraries that
run them. What it raises becomes a sentence; the traceback goes to the log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError
from .out_of_memory import out_of_memory

LONGEST = 2000
"""Characters of a message that are shown; the log has all of it."""

log = logging.getLogger(__name__)


@contextmanager
def foreign_code(what: str, remedy: str = "", too_big: str = "") -> Iterator[None]:
    """Raise `UserError` for anything that the code inside raises: `what` it was, the whole message
    in one line, and the `remedy`.

    `too_big` is the sentence where memory ran out; without one that error passes, as `UserError`
    and what ends a session do. A panic of Rust code is no `Exception`, and a model's code may call
    `sys.exit`.
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
            if not too_big:
                # Whoever looks for it, looks for an `Exception`.
                if isinstance(error, Exception):
                    raise
                raise MemoryError(message(error)) from error
            raise UserError(too_big) from error
        log.error("%s", what, exc_info=error)
        sentence = f"{what} ({message(error)})"
        raise UserError(f"{sentence}; {remedy}" if remedy else sentence) from error


def message(error: BaseException) -> str:
    """An exception's whole text in one line, or its kind where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… (all of it is in the log)"
