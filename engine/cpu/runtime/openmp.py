"""Compiled functions on the threads that torch computes with.

A second pool of threads would wait for the first one's, which go on spinning for a while after
each of torch's operations. So functions are handed to the OpenMP library that torch brings, through
the calls that GCC makes for a parallel region.
"""

import ctypes
from pathlib import Path

import torch
from llvmlite import binding
from numba import types

thread_index = types.ExternalFunction("omp_get_thread_num", types.int32())
"""The calling thread's index, for compiled functions."""
thread_count = types.ExternalFunction("omp_get_num_threads", types.int32())
"""Number of threads that run the function, for compiled functions."""
barrier = types.ExternalFunction("GOMP_barrier", types.void())
"""Wait for the other threads, for compiled functions."""


def _openmp() -> ctypes.CDLL | None:
    """GNU's OpenMP library, as torch brings it for Linux."""
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        for library in folder.glob("libgomp*.so*"):
            return ctypes.CDLL(str(library))
    return None


_OPENMP = _openmp()
if _OPENMP:
    for _function in (thread_index, thread_count, barrier):
        _address = ctypes.cast(getattr(_OPENMP, _function.symbol), ctypes.c_void_p).value
        binding.add_symbol(_function.symbol, _address)
    _OPENMP.GOMP_parallel.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_uint] * 2
    _OPENMP.GOMP_parallel.restype = None


def available() -> bool:
    """Whether torch brings GNU's OpenMP library."""
    return _OPENMP is not None


def run(function: int, argument: int) -> None:
    """Run the function at an address on as many threads as torch uses, with a pointer to pass."""
    assert _OPENMP
    _OPENMP.GOMP_parallel(function, argument, torch.get_num_threads(), 0)
