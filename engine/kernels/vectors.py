"""The loops that read weights, keys and values, for compiled functions.

Written in LLVM's own terms, as compilers find neither the width nor the reach that it takes to read
at the memory's pace.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

MOST = 8
"""Rows at once: processors have registers for the sums of no more."""
STRIDE = 32
"""What the number of columns must be a multiple of."""

_WIDTH = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers per vector."""
_AHEAD = 8192
"""Bytes that are asked for ahead: by itself a processor does not look past a page."""

_F32, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(_F32, _WIDTH), ir.VectorType(_I32, _WIDTH)


def _function(body: Callable[..., None], half: bool) -> Callable[..., Any]:
    """Of `rows` and six integers more; does nothing for other than 1 to `MOST` rows."""
    name = f"prunetui{body.__name__}_{'half' if half else 'float'}"
    integers = [_I64] * 7

    @intrinsic
    def function(
        _typing: Any, _rows: Any, _a: Any, _b: Any, _c: Any, _d: Any, _e: Any, _f: Any
    ) -> Any:
        return types.void(*[types.int64] * len(integers)), call

    def call(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        callee = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), integers), name
        )
        if callee.is_declaration:
            generate(callee)
        builder.call(callee, arguments)
        return context.get_dummy_value()

    def generate(callee: ir.Function) -> None:
        # Not into each place that it is called from: that takes seconds to compile.
        callee.attributes.add("noinline")
        callee.linkage = "internal"
        builder = ir.IRBuilder(callee.append_basic_block())
        rows, *others = callee.args
        done = builder.append_basic_block()
        choice = builder.switch(rows, done)
        for count in range(1, MOST + 1):
            block = builder.append_basic_block()
            choice.add_case(count, block)
            builder.position_at_end(block)
            body(_Loop(builder, half), count, *others)
            builder.branch(done)
        builder.position_at_end(done)
        builder.ret_void()

    return function


class _Loop:
    """What the loops are made of; numbers in memory are bfloat16 (`half`) or float32."""

    def __init__(self, builder: Any, half: bool) -> None:
        self.builder, self.half = builder, half
        self.parts = 2 if half else 1
        """Vectors of float32 in one of memory: of bfloat16 the even columns and the odd ones."""

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(_I64, value)

    def at(self, base: Any, index: Any, size: int) -> Any:
        """The address so many numbers of a size behind another."""
        return self.builder.add(base, self.builder.mul(index, self.number(size)))

    def load(self, address: Any, of: Any = _FLOATS) -> Any:
        return self.builder.load(self.builder.inttoptr(address, of.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=4)

    def read(self, address: Any) -> list[Any]:
        """A vector of memory as vectors of float32, and have what lies ahead on its way."""
        ahead = self.builder.add(address, self.number(_AHEAD))
        prefetch = self._declared(
            "llvm.prefetch.p0", ir.VoidType(), _I8.as_pointer(), _I32, _I32, _I32
        )
        # To read, into the second cache, of data.
        flags = [ir.Constant(_I32, flag) for flag in (0, 2, 1)]
        self.builder.call(prefetch, [self.builder.inttoptr(ahead, _I8.as_pointer()), *flags])
        if not self.half:
            return [self.load(address)]
        words = self.load(address, _WORDS)
        even = self.builder.shl(words, ir.Constant(_WORDS, [16] * _WIDTH))
        odd = self.builder.and_(words, ir.Constant(_WORDS, [0xFFFF0000] * _WIDTH))
        return [self.builder.bitcast(part, _FLOATS) for part in (even, odd)]

    def zeros(self) -> Any:
        """A place for running sums."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(_FLOATS, [0.0] * _WIDTH))

    def add_product(self, place: Any, one: Any, other: Any) -> None:
        product = self.builder.fmul(one, other, flags=("contract",))
        total = self.builder.fadd(self.builder.load(place), product, flags=("contract",))
        self.builder.store(total, place)

    def sum(self, place: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{_WIDTH}f32"
        operands = [ir.Constant(_F32, -0.0), self.builder.load(place)]
        reduce = self._declared(name, _F32, _F32, _FLOATS)
        return self.builder.call(reduce, operands, fastmath=("reassoc",))

    def repeated(self, address: Any) -> Any:
        """A vector of one number."""
        first = self.builder.insert_element(
            ir.Constant(_FLOATS, ir.Undefined), self.load(address, _F32), ir.Constant(_I32, 0)
        )
        mask = ir.Constant(ir.VectorType(_I32, _WIDTH), [0] * _WIDTH)
        return self.builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), mask)

    def _declared(self, name: str, result: Any, *takes: Any) -> Any:
        signature = ir.FunctionType(result, takes)
        return cgutils.get_or_insert_function(self.builder.module, signature, name)


def _dots(
    loop: _Loop,
    rows: int,
    inputs: Any,
    first: Any,
    second: Any,
    columns: Any,
    sums: Any,
    stride: Any,
) -> None:
    builder = loop.builder
    running = [[loop.zeros() for _ in range(2)] for _ in range(rows)]
    half_row = builder.udiv(columns, loop.number(2))
    at_once = loop.number(loop.parts * _WIDTH)
    with cgutils.for_range(builder, builder.udiv(columns, at_once)) as each:
        offset = builder.mul(each.index, loop.number(4 * _WIDTH))
        weights = [loop.read(builder.add(row, offset)) for row in (first, second)]
        for row, places in enumerate(running):
            address = builder.add(inputs, offset)
            address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
            values = [loop.load(address)]
            if loop.half:
                values.append(loop.load(loop.at(address, half_row, 4)))
            for place, of_row in zip(places, weights, strict=True):
                for value, weight in zip(values, of_row, strict=True):
                    loop.add_product(place, value, weight)
    for row, places in enumerate(running):
        of_row = loop.at(sums, builder.mul(stride, loop.number(row)), 4)
        for column, place in enumerate(places):
            loop.store(loop.sum(place), builder.add(of_row, loop.number(4 * column)))


def _mix(
    loop: _Loop,
    rows: int,
    weights: Any,
    stride: Any,
    values: Any,
    positions: Any,
    columns: Any,
    out: Any,
) -> None:
    builder = loop.builder
    half_row = builder.udiv(columns, loop.number(2))
    row_bytes = builder.mul(columns, loop.number(4 // loop.parts))

    def add_up(begin: Any, reads: int) -> None:
        """So many vectors of memory, `begin` bytes behind a position's first."""
        running = [[loop.zeros() for _ in range(reads * loop.parts)] for _ in range(rows)]
        for place in (place for places in running for place in places):
            builder.store(ir.Constant(_FLOATS, [0.0] * _WIDTH), place)
        with cgutils.for_range(builder, positions) as position:
            held = builder.add(values, builder.add(builder.mul(position.index, row_bytes), begin))
            parts = []
            for read in range(reads):
                parts += loop.read(builder.add(held, loop.number(read * 4 * _WIDTH)))
            for row, places in enumerate(running):
                of_row = loop.at(weights, builder.mul(stride, loop.number(row)), 4)
                weight = loop.repeated(loop.at(of_row, position.index, 4))
                for place, part in zip(places, parts, strict=True):
                    loop.add_product(place, weight, part)
        for row, places in enumerate(running):
            address = builder.add(out, begin)
            address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
            for number, place in enumerate(places):
                read, part = divmod(number, loop.parts)
                behind = builder.add(address, loop.number(read * 4 * _WIDTH))
                behind = loop.at(behind, half_row, 4 * part) if part else behind
                loop.store(builder.load(place), behind)

    # As much of a position as registers have sums for, then the rest.
    many = (4 if rows <= _WIDTH // 4 else 2) // loop.parts
    vectors = builder.udiv(row_bytes, loop.number(4 * _WIDTH))
    whole = builder.udiv(vectors, loop.number(many))
    with cgutils.for_range(builder, whole) as each:
        add_up(builder.mul(each.index, loop.number(many * 4 * _WIDTH)), many)
    done = builder.mul(whole, loop.number(many))
    with cgutils.for_range(builder, builder.sub(vectors, done)) as each:
        add_up(builder.mul(builder.add(done, each.index), loop.number(4 * _WIDTH)), 1)


float_dots, half_dots = (_function(_dots, half) for half in (False, True))
"""Dot products, of addresses: `(rows, inputs, first, second, columns, sums, stride)`.

`inputs` are float32 [rows, columns], `first` and `second` two rows of weights [columns], float32 or
bfloat16, and `sums` float32 [rows, stride], of which the first two columns are written. For
bfloat16 weights the inputs of even columns come first in each row and then those of odd ones, as
two weights are taken out of one word. What a row's sums are does not depend on how many rows there
are.
"""

float_mix, half_mix = (_function(_mix, half) for half in (False, True))
"""Weighted sums, of addresses: `(rows, weights, stride, values, positions, columns, out)`.

`weights` are float32 [rows, stride], of which the first `positions` columns are read, `values`
[positions, columns], float32 or bfloat16, and `out` float32 [rows, columns]; of bfloat16 values the
even columns come first in each row.
"""
