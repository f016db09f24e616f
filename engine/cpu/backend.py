"""The door to the CPU path: all that the other rooms import from here.

Behind it lie kernels that numba compiles when a session on a CPU first needs them; a session on
another device imports nothing of them.
"""

import functools
import logging
from typing import TYPE_CHECKING

import torch

from ..out_of_memory import out_of_memory

if TYPE_CHECKING:
    from .cpu_backend import CpuBackend

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16)


def backend_for(device: torch.device, dtype: torch.dtype) -> "CpuBackend | None":
    """The compiled CPU path; None where torch's own operations run: on another device or dtype,
    without numba, or without the GNU OpenMP that torch brings for Linux."""
    if device != CPU or dtype not in DTYPES:
        return None
    return _compiled_backend()


@functools.cache
def _compiled_backend() -> "CpuBackend | None":
    try:
        from .cpu_backend import CpuBackend
        from .runtime import openmp
    except ImportError as error:
        if out_of_memory(error):
            raise
        log.warning("no compiled CPU path", exc_info=True)
        return None
    return CpuBackend() if openmp.available() else None
