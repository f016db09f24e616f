"""How much memory the session holds, and gives back."""

import ctypes
import functools
import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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
