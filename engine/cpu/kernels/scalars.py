"""Helpers of compiled functions: pointers, threads, bfloat16, a vectorizable exponential."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from ..runtime import openmp

REORDERED = {"reassoc", "contract"}
"""Fast-math flags of sums whose terms may be added in any order, the same one each time."""
FUSED = {"contract"}
"""Fast-math flags of products that something is added to: both at once, rounded once."""


compiled = functools.partial(njit, error_model="numpy")
"""Decorator of functions that run in instructions. They divide by 0 as IEEE numbers do: a thread
that raised instead would leave the others waiting."""


def _generated(function: Callable[..., Any]) -> Any:
    """Make an intrinsic, which compiled functions call without the first argument."""
    return intrinsic(function)


@_generated
def at(_typing: Any, address: Any, of: Any) -> Any:  # noqa: ARG001
    """A pointer to numbers of a type at an address."""
    pointer = types.CPointer(of.dtype)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, of), generate


@_generated
def fma(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """ab + c of float32, rounded once."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(*[types.float32] * 3), generate


def _same_bits(source: types.Type, target: types.Type) -> Any:
    """Make an intrinsic that reads the bits of one type as another."""

    @_generated
    def convert(_typing: Any, number: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return convert


float_from_bits, bits_of = (
    _same_bits(types.uint32, types.float32),
    _same_bits(types.float32, types.uint32),
)
float_from_bits64, bits_of64 = (
    _same_bits(types.uint64, types.float64),
    _same_bits(types.float64, types.uint64),
)


@compiled(forceinline=True)
def thread_share(total):
    """The calling thread's share of so many items: begin and end."""
    thread, threads = np.int64(openmp.thread_index()), np.int64(openmp.thread_count())
    return total * thread // threads, total * (thread + 1) // threads


@compiled(forceinline=True)
def read(address, i, is_bfloat16):
    """The number at an index, bfloat16 or float32 in memory, as float32."""
    if is_bfloat16:
        return float_from_bits(np.uint32(np.uint32(at(address, np.uint16)[i]) << np.uint32(16)))
    return at(address, np.float32)[i]


@compiled(forceinline=True)
def round_bits(bits):
    """The nearest bfloat16, ties to even, of float32 bits, as float32 bits."""
    if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
        return np.uint32(0x7FC00000)  # NaN
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)


@compiled(forceinline=True)
def round_all(address, count):
    """Round float32 numbers in memory to bfloat16."""
    words = at(address, np.uint32)
    for i in range(count):
        words[i] = round_bits(words[i])


@compiled(forceinline=True, fastmath=FUSED)
def exp(x):
    """e^x of float32 x up to 0, to two units in the last place; 0 below -87."""
    # 1.5 · 2²³: added to a small number, it leaves the nearest integer in the last bits.
    shifter = np.float32(12582912.0)
    shifted = x * np.float32(1.4426950408889634) + shifter
    whole = shifted - shifter
    # ln 2 in two parts, the first of which has few enough digits for exact products.
    rest = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    series = np.float32(1 / 720)
    series = series * rest + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = series * rest + np.float32(1 / 2)
    series = series * rest + np.float32(1)
    series = series * rest + np.float32(1)
    exponent = np.uint32(bits_of(shifted) - bits_of(shifter) + np.uint32(127))
    power = float_from_bits(np.uint32(exponent << np.uint32(23)))
    return np.float32(0) if x < np.float32(-87) else series * power


@compiled(forceinline=True, fastmath=FUSED)
def exp64(x):
    """e^x of float64 x up to 0, to two units in the last place; 0 below -708."""
    # As above, with 1.5 · 2⁵².
    shifter = 6755399441055744.0
    shifted = x * 1.4426950408889634 + shifter
    whole = shifted - shifter
    rest = x - whole * 0.693147180369123816490 - whole * 1.90821492927058770002e-10
    series = 1 / 6227020800
    series = series * rest + 1 / 479001600
    series = series * rest + 1 / 39916800
    series = series * rest + 1 / 3628800
    series = series * rest + 1 / 362880
    series = series * rest + 1 / 40320
    series = series * rest + 1 / 5040
    series = series * rest + 1 / 720
    series = series * rest + 1 / 120
    series = series * rest + 1 / 24
    series = series * rest + 1 / 6
    series = series * rest + 1 / 2
    series = series * rest + 1
    series = series * rest + 1
    exponent = np.uint64(bits_of64(shifted) - bits_of64(shifter) + np.uint64(1023))
    power = float_from_bits64(np.uint64(exponent << np.uint64(52)))
    return 0.0 if x < -708 else series * power


@compiled(forceinline=True)
def silu(x):
    """x / (1 + e^-x) of float32."""
    power = exp(-abs(x))
    return (x if x > 0 else x * power) / (np.float32(1) + power)


@compiled()
def maximum(address, count, is_bfloat16):
    """The highest of numbers in memory, bfloat16 or float32; NaN is higher than any other."""
    # The highest of integers in the same order, which vectors can compare.
    most = np.int32(-0x80000000)
    for i in range(count):
        bits = np.int32(bits_of(read(address, i, is_bfloat16)))
        size = bits & np.int32(0x7FFFFFFF)
        ordered = size if bits >= 0 else ~size
        most = max(most, np.int32(0x7FFFFFFF) if size > np.int32(0x7F800000) else ordered)
    return float_from_bits(np.uint32(most if most >= 0 else ~most | np.int32(-0x80000000)))
