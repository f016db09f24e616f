"""How much memory the session holds, and when there is no more."""

import resource
import sys
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def memory_in_use(device: torch.device) -> int:
    """Bytes: allocated on the GPU, else resident (the most so far, where only that is known)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: BaseException) -> bool:
    """On a CPU torch raises a plain RuntimeError, which only its text tells from others."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
