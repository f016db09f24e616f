"""How much memory the session holds, and when there is no more."""

import ctypes
import errno
import functools
import logging
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    # Where memory runs out in importing it, that is to be said too.
    import torch

log = logging.getLogger(__name__)

_PAGE = resource.getpagesize()
# Parameters of mallopt(3); 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def memory_in_use(device: "torch.device") -> int:
    """Bytes: allocated on all GPUs, else resident (the most so far, where only that is known)."""
    if device.type == "cuda":
        import torch

        return sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count())))
    if (pages := _statm()) is not None:
        return int(os.pread(pages, 100, 0).split()[1]) * _PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _statm() -> int | None:
    """Linux's file of this process's pages, open: it is read at every step."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except FileNotFoundError:
        return None


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
    progress: Callable[[str, float | None], None],
) -> Iterator[Callable[[str, float | None], None]]:
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


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free, for the next ones.

    A vocabulary-sized tensor is otherwise given back to the kernel and asked for again at every
    operation, and on a CPU the fresh pages cost more than the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def give_back_freed_memory() -> None:
    """To the kernel, once: where as much will not be needed again."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        return
