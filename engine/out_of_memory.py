"""Detection of memory that has run out, and the one guard that turns it into a sentence."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import UserError
from .progress import Cancelled, Progress

log = logging.getLogger(__name__)

_MESSAGES = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|"
    r"DefaultCPUAllocator|std::bad_alloc|bad allocation|can't start new thread|"
    r"ThreadPoolBuildError|"
    r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED|failed to map segment|"
    # C code that returns NULL without setting an exception.
    r"(error return|returned NULL) without (exception set|setting an exception)",
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one in its chain of causes, means that memory has run out.

    Torch, Numba, mmap and the kernel raise errors of many types, told apart by their texts.
    """
    # A `UserError` already has the right sentence; the others may come while such an error is
    # handled, and have it in their chain.
    if isinstance(error, UserError | KeyboardInterrupt | Cancelled):
        return False
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        # Torch's type is known by its name: there may be no memory to import torch.
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        # Errors of other types may quote what a user or a model's code has written.
        native = isinstance(cause, RuntimeError | SystemError | OSError | ImportError)
        rust = type(cause).__name__ in ("SafetensorError", "PanicException")
        if (native or rust) and _MESSAGES.search(str(cause)):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def guard_memory(
    sentence: str | Callable[[], str], error_type: type[UserError] = UserError
) -> Iterator[None]:
    """Raise `error_type` with a sentence if memory runs out inside; other errors pass.

    A sentence that depends on how far the code inside came is given as a function.
    """
    try:
        yield
    except BaseException as error:
        if not out_of_memory(error):
            raise
        text = sentence if isinstance(sentence, str) else sentence()
        # There may be no memory for the traceback either.
        with suppress(Exception):
            log.exception("%s", text)
        raise error_type(text) from error


@contextmanager
def guard_memory_by_stage(progress: Progress) -> Iterator[Progress]:
    """Guard work in stages: yields a progress callback, whose last stage the sentence names."""
    stage = "beginning"

    def report(text: str, done: float | None) -> None:
        nonlocal stage
        stage = text
        progress(text, done)

    with guard_memory(
        lambda: (
            f"out of memory while {stage}; a smaller model, fewer variants or a shorter prompt "
            "need less"
        )
    ):
        yield report
