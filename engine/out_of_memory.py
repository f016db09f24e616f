"""Detection of memory that has run out, the one guard that turns it into a sentence, and recovery
that begins after what the failed attempt allocated is freed."""

import errno
import gc
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from .errors import UserError
from .progress import Cancelled, Progress

log = logging.getLogger(__name__)

_MESSAGES = re.compile(
    r"out[ _]of[ _]memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|"
    r"DefaultCPUAllocator|std::bad_alloc|bad allocation|can't start new thread|"
    r"ThreadPoolBuildError|failed to map segment|"
    # CUDA's libraries. cuDNN 9 has longer names, cuSPARSE texts of its own.
    r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(\w+_)?ALLOC(ATION)?_FAILED|"
    r"(resource allocation failed|insufficient resources),? when calling `cu|"
    # A library that finds no room for its handle on a full GPU says that it was not initialized.
    r"(NOT_INITIALIZED|INTERNAL_ERROR|initialization error|internal error),? when calling "
    r"`cu[a-z]+Create\(|CUDNN_STATUS_NOT_INITIALIZED|"
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
    for cause in _chain(error):
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
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from, or while they were handled."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__context__, cause.__cause__]


def _free_attempt(error: BaseException) -> None:
    """Free what the calls that an error has ended have allocated: its tracebacks hold them.

    What is no bug needs no traceback. One that is kept has frames without variables, but in Python
    a frame also holds what its function closes over.
    """
    expected = isinstance(error, UserError | Cancelled) or out_of_memory(error)
    for cause in [*_chain(error)]:
        traceback.clear_frames(cause.__traceback__)
        if expected:
            cause.__traceback__ = None


def release_failed_attempt(error: BaseException) -> None:
    """Free what was allocated by the calls that an error has ended.

    If memory ran out, reference cycles and the unused memory that torch holds on GPUs are freed
    too, which takes some tenths of a second.
    """
    _free_attempt(error)
    if any(map(out_of_memory, _chain(error))):
        gc.collect()
        # There may be no memory to import torch, and an import may have failed halfway.
        torch = sys.modules.get("torch")
        with suppress(AttributeError, RuntimeError):
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()


# Classes, in lower case as those of contextlib: a generator would hold the traceback while it runs.


class roll_back:  # noqa: N801
    """Context manager that calls `restore` after any error inside, when what the failed attempt
    allocated is freed.

    The attempt must be one call: variables of the function that has the `with` are not cleared.
    """

    def __init__(self, restore: Callable[[], object]) -> None:
        self._restore = restore

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            del trace
            if out_of_memory(error):
                _log(error, "out of memory")
            _free_attempt(error)
            self._restore()


class guard_memory:  # noqa: N801
    """Context manager that raises `error_type` with a sentence if memory runs out inside; other
    errors pass.

    A sentence that depends on how far the code inside came is given as a function.
    """

    def __init__(
        self, sentence: str | Callable[[], str], error_type: type[UserError] = UserError
    ) -> None:
        self._sentence = sentence
        self._error_type = error_type

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or not out_of_memory(error):
            return
        del trace
        text = self._sentence if isinstance(self._sentence, str) else self._sentence()
        _log(error, text)
        _free_attempt(error)
        raise self._error_type(text) from error


def _log(error: BaseException, text: str) -> None:
    """Log an error and its traceback as text: a record of the log may live on.

    There may be no memory for it either.
    """
    with suppress(Exception):
        log.error("%s\n%s", text, "".join(traceback.format_exception(error)))


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
