"""Memory use of the process, and what the allocator does with freed memory."""

import ctypes
import functools
import os
import resource
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_PAGE = resource.getpagesize()
# Parameters of mallopt(3); 32 MiB is the largest threshold that it takes.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def memory_in_use(devices: Iterable["torch.device"]) -> int:
    """Bytes allocated on those of the devices that are GPUs; if none is, bytes resident on the CPU
    (the peak, where only that is known).

    To ask a GPU takes 0.16 ms, and every step asks.
    """
    if gpus := [device for device in devices if device.type == "cuda"]:
        import torch

        return sum(map(torch.cuda.memory_allocated, gpus))
    if (pages := _statm()) is not None:
        return int(os.pread(pages, 100, 0).split()[1]) * _PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _statm() -> int | None:
    """An open descriptor of Linux's page counts of this process, which every step reads."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except FileNotFoundError:
        return None


def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed tensors.

    It would otherwise return a vocabulary-sized tensor to the kernel and request another at every
    operation, and on a CPU the new pages cost more than the arithmetic.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)


def give_back_freed_memory() -> None:
    """Return freed memory to the kernel once, where as much will not be needed again."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        return
