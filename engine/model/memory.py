"""Memory use of the process, and what the allocator does with freed memory."""

import ctypes
import functools
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
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


def available_memory() -> int | None:
    """Bytes that a process can still allocate on the CPU without swapping: what the machine has, or
    the control groups of a container or a batch job leave; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*sizes, *_left_by_control_groups()], default=None)


def _left_by_control_groups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that each control group around this process has left, of either version.

    See https://docs.kernel.org/admin-guide/cgroup-v2.html and …/cgroup-v1/memory.html.
    """
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, limit, usage, cached = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")
        for directory in (group, *group.parents):
            # Files of a group that a container does not see are missing; "max" is no number.
            with suppress(OSError, ValueError):
                most = int((directory / limit).read_text(encoding="ascii"))
                used = int((directory / usage).read_text(encoding="ascii"))
                stat = (directory / "memory.stat").read_text(encoding="ascii").split()
                # Pages of files that the kernel drops first are counted as used.
                yield most - used + int(dict(zip(stat[::2], stat[1::2], strict=True))[cached])
            if directory == top:
                break


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
