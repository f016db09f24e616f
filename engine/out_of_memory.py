"""Errors of memory that has run out, and the sentence that they become."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import UserError
from .progress import Progress

log = logging.getLogger(__name__)

_SAID = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|"
    r"DefaultCPUAllocator|std::bad_alloc|bad allocation|can't start new thread|"
    r"ThreadPoolBuildError|"
    r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|failed to map segment|"
    # What C code that forgets to say it leaves to Python.
    r"(error return|returned NULL) without (exception set|setting an exception)",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for what raised this, or what that came of.

    Torch, Numba, mmap and the kernel raise errors of many kinds, which their texts tell apart.
    """
    # An error that has its sentence is as it says.
    if isinstance(error, UserError | KeyboardInterrupt):
        return False
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        # Torch's is known by its name: importing torch may be what there was no room for.
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        # Others may quote what a user or a model's code has written.
        says = isinstance(cause, RuntimeError | SystemError | OSError | ImportError)
        rust = type(cause).__name__ in ("SafetensorError", "PanicException")
        if (says or rust) and _SAID.search(str(cause)):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def names_what_has_no_room(
    progress: Progress,
) -> Iterator[Progress]:
    """Progress to be called instead, whose last text is what `UserError` says was being done where
    memory runs out."""
    doing = "beginning"

    def report(text: str, done: float | None) -> None:
        nonlocal doing
        doing = text
        progress(text, done)

    try:
        yield report
    except Exception as error:
        if not out_of_memory(error):
            raise
        # Also for the traceback there may be none.
        with suppress(Exception):
            log.exception("out of memory while %s", doing)
        raise UserError(
            f"out of memory while {doing}; a smaller model, fewer variants or a shorter prompt "
            "need less"
        ) from error
