"""The loops that read weights, keys and values, for compiled functions.

Written as LLVM code, as compilers find neither the vector width nor the prefetch distance that it
takes to read at the memory's pace.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

POSITIONS_AT_ONCE = 4
"""Positions that are scored together."""
COLUMN_MULTIPLE = 32
"""Divisor of every number of columns."""
SCALED_BLOCK = 16
"""Weights that share a scale and an offset."""
SCALED_BLOCK_BYTES = 8 + SCALED_BLOCK
ZERO_CODE = 255
"""The integer that stands for 0, which no number of scales away from an offset need be."""

_WIDTH = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""float32 numbers in a vector register."""
ROWS_AT_ONCE = 12 if _WIDTH == 16 else 8
"""Rows that are multiplied together: processors have registers for the sums of no more."""
_AHEAD = 8192
"""Prefetch distance in bytes: by itself a processor does not look past a page."""

_F32, _I64 = ir.FloatType(), ir.IntType(64)
_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_FLOATS, _WORDS = ir.VectorType(_F32, _WIDTH), ir.VectorType(_I32, _WIDTH)
_FLOAT16S = ir.VectorType(ir.HalfType(), _WIDTH)
_HALVES, _BYTES = ir.VectorType(_I16, _WIDTH), ir.VectorType(_I8, _WIDTH)


class _Layout(Enum):
    """Storage format of numbers in memory."""

    FLOAT = "float32"
    SPLIT_BFLOAT16 = "bfloat16, of as many words the even columns and then the odd ones"
    BFLOAT16 = "bfloat16, in order"
    FLOAT16 = "float16, in order"
    SCALED = "a scale and an offset, float32, and uint8, in order"


def has_fma() -> bool:
    """Whether the processor has fused multiply-add, without which scaled numbers are slow."""
    features = binding.get_host_cpu_features()
    return features.get("fma", "neon" in features)


def _make_function(body: Callable[..., None], layout: _Layout) -> Callable[..., Any]:
    """Make an intrinsic of `rows` and six more integers, which does nothing for other than 1 to
    `ROWS_AT_ONCE` rows."""
    name = f"prunetui{body.__name__}_{layout.name}"
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
        # Inlined into each caller it would take seconds to compile.
        callee.attributes.add("noinline")
        callee.linkage = "internal"
        builder = ir.IRBuilder(callee.append_basic_block())
        rows, *others = callee.args
        done = builder.append_basic_block()
        choice = builder.switch(rows, done)
        for count in range(1, ROWS_AT_ONCE + 1):
            block = builder.append_basic_block()
            choice.add_case(count, block)
            builder.position_at_end(block)
            body(_LoopBuilder(builder, layout), count, *others)
            builder.branch(done)
        builder.position_at_end(done)
        builder.ret_void()

    return function


class _LoopBuilder:
    """Builds the LLVM code that the loops share."""

    def __init__(self, builder: Any, layout: _Layout) -> None:
        self.builder, self.layout = builder, layout
        self.vectors = {_Layout.FLOAT: 1, _Layout.SCALED: SCALED_BLOCK // _WIDTH}.get(layout, 2)
        """Vectors of float32 in one read."""
        self.bytes = SCALED_BLOCK_BYTES if layout is _Layout.SCALED else 4 * _WIDTH
        """Bytes of one read."""

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(_I64, value)

    def at(self, base: Any, index: Any, size: int) -> Any:
        """The address of the number at an index after a base address."""
        return self.builder.add(base, self.builder.mul(index, self.number(size)))

    def load(self, address: Any, of: Any = _FLOATS) -> Any:
        return self.builder.load(self.builder.inttoptr(address, of.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=4)

    def read(self, address: Any) -> list[Any]:
        """Read one vector of memory as vectors of float32, and prefetch what lies ahead."""
        ahead = self.builder.add(address, self.number(_AHEAD))
        prefetch = self._declared(
            "llvm.prefetch.p0", ir.VoidType(), _I8.as_pointer(), _I32, _I32, _I32
        )
        # Flags: a read, into the second-level cache, of data.
        flags = [ir.Constant(_I32, flag) for flag in (0, 2, 1)]
        self.builder.call(prefetch, [self.builder.inttoptr(ahead, _I8.as_pointer()), *flags])
        if self.layout is _Layout.FLOAT:
            return [self.load(address)]
        if self.layout is _Layout.SPLIT_BFLOAT16:
            words = self.load(address, _WORDS)
            even = self.builder.shl(words, ir.Constant(_WORDS, [16] * _WIDTH))
            odd = self.builder.and_(words, ir.Constant(_WORDS, [0xFFFF0000] * _WIDTH))
            return [self.builder.bitcast(part, _FLOATS) for part in (even, odd)]
        if self.layout in (_Layout.BFLOAT16, _Layout.FLOAT16):
            return [self._widened(self.at(address, self.number(i), 2 * _WIDTH)) for i in range(2)]
        scale, offset = self.repeated(address), self.repeated(self.at(address, self.number(1), 4))
        first = self.builder.add(address, self.number(8))
        parts = [self.at(first, self.number(i), _WIDTH) for i in range(SCALED_BLOCK // _WIDTH)]
        return [self._scaled(part, scale, offset) for part in parts]

    def _widened(self, address: Any) -> Any:
        if self.layout is _Layout.FLOAT16:
            return self.builder.fpext(self.load(address, _FLOAT16S), _FLOATS)
        words = self.builder.zext(self.load(address, _HALVES), _WORDS)
        words = self.builder.shl(words, ir.Constant(_WORDS, [16] * _WIDTH))
        return self.builder.bitcast(words, _FLOATS)

    def _scaled(self, address: Any, scale: Any, offset: Any) -> Any:
        words = self.builder.zext(self.load(address, _BYTES), _WORDS)
        fma = self._declared(f"llvm.fma.v{_WIDTH}f32", _FLOATS, *[_FLOATS] * 3)
        steps = self.builder.sitofp(words, _FLOATS)
        number = self.builder.call(fma, (steps, scale, offset))
        is_zero = self.builder.icmp_unsigned("==", words, ir.Constant(_WORDS, [ZERO_CODE] * _WIDTH))
        return self.builder.select(is_zero, ir.Constant(_FLOATS, [0.0] * _WIDTH), number)

    def zeros(self) -> Any:
        """The address of a new vector of running sums."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(_FLOATS, [0.0] * _WIDTH))

    def add_product(self, total_address: Any, a: Any, b: Any) -> None:
        product = self.builder.fmul(a, b, flags=("contract",))
        total = self.builder.fadd(self.builder.load(total_address), product, flags=("contract",))
        self.builder.store(total, total_address)

    def sum(self, vector_address: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{_WIDTH}f32"
        operands = [ir.Constant(_F32, -0.0), self.builder.load(vector_address)]
        reduce = self._declared(name, _F32, _F32, _FLOATS)
        return self.builder.call(reduce, operands, fastmath=("reassoc",))

    def sums(self, vectors: list[Any]) -> Any:
        """A vector of the sums of 2ⁿ vectors: together they take fewer shuffles."""
        size = _WIDTH
        while len(vectors) > 1:
            half = size // 2
            low = [i for i in range(2 * _WIDTH) if i % size < half]
            high = [i + half for i in low]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self._folded(a, b, low, high) for a, b in pairs]
            size = half
        (vector,) = vectors
        half, order = size // 2, range(_WIDTH)
        while half:
            vector = self._folded(vector, vector, order, [i ^ half for i in order])
            half //= 2
        return self._shuffled(vector, vector, range(0, _WIDTH, size))

    def _folded(self, a: Any, b: Any, low: Iterable[int], high: Iterable[int]) -> Any:
        return self.builder.fadd(self._shuffled(a, b, low), self._shuffled(a, b, high))

    def repeated(self, address: Any) -> Any:
        """A vector whose elements are all one number."""
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        first = self.builder.insert_element(
            undefined, self.load(address, _F32), ir.Constant(_I32, 0)
        )
        return self._shuffled(first, undefined, [0] * _WIDTH)

    def _shuffled(self, a: Any, b: Any, indices: Iterable[int]) -> Any:
        indices = [*indices]
        mask = ir.Constant(ir.VectorType(_I32, len(indices)), indices)
        return self.builder.shuffle_vector(a, b, mask)

    def _declared(self, name: str, result: Any, *takes: Any) -> Any:
        signature = ir.FunctionType(result, takes)
        return cgutils.get_or_insert_function(self.builder.module, signature, name)


def _dots(
    loop: _LoopBuilder,
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
    vectors, is_split = loop.vectors, loop.layout is _Layout.SPLIT_BFLOAT16
    # Bytes of inputs from one read to the next, and between the vectors of one read.
    step = loop.number(4 * _WIDTH * (1 if is_split else vectors))
    apart = builder.mul(columns, loop.number(2)) if is_split else loop.number(4 * _WIDTH)
    reads = builder.udiv(columns, loop.number(vectors * _WIDTH))
    with cgutils.for_range(builder, reads) as each:
        offset = builder.mul(each.index, loop.number(loop.bytes))
        weights = [loop.read(builder.add(row, offset)) for row in (first, second)]
        for row, totals in enumerate(running):
            address = builder.add(inputs, builder.mul(each.index, step))
            address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
            values = [
                loop.load(builder.add(address, builder.mul(apart, loop.number(vector))))
                for vector in range(vectors)
            ]
            for total, row_weights in zip(totals, weights, strict=True):
                for value, weight in zip(values, row_weights, strict=True):
                    loop.add_product(total, value, weight)
    for row, totals in enumerate(running):
        row_sums = loop.at(sums, builder.mul(stride, loop.number(row)), 4)
        for column, total in enumerate(totals):
            loop.store(loop.sum(total), builder.add(row_sums, loop.number(4 * column)))


def _score(
    loop: _LoopBuilder,
    rows: int,
    queries: Any,
    keys: Any,
    positions: Any,
    columns: Any,
    scores: Any,
    stride: Any,
) -> None:
    builder = loop.builder
    # As many positions as registers have sums for.
    many = POSITIONS_AT_ONCE if rows <= _WIDTH * 3 // 8 else 2
    vectors, is_split = loop.vectors, loop.layout is _Layout.SPLIT_BFLOAT16
    row_bytes = builder.mul(columns, loop.number(2 if is_split else 4))
    half_row = builder.mul(columns, loop.number(2))
    last = builder.sub(positions, loop.number(1))
    running = [[loop.zeros() for _ in range(many)] for _ in range(rows)]
    groups = builder.udiv(builder.add(last, loop.number(many)), loop.number(many))
    with cgutils.for_range(builder, groups) as group:
        first = builder.mul(group.index, loop.number(many))
        key_addresses = []
        for i in range(many):
            position = builder.add(first, loop.number(i))
            # After the last position, the last one is scored again.
            position = builder.select(builder.icmp_signed("<", position, last), position, last)
            key_addresses.append(builder.add(keys, builder.mul(position, row_bytes)))
        for total in (total for totals in running for total in totals):
            builder.store(ir.Constant(_FLOATS, [0.0] * _WIDTH), total)
        reads = builder.udiv(row_bytes, loop.number(loop.bytes))
        with cgutils.for_range(builder, reads) as each:
            offset = builder.mul(each.index, loop.number(loop.bytes))
            key_vectors = [loop.read(builder.add(key, offset)) for key in key_addresses]
            for row, totals in enumerate(running):
                address = builder.add(queries, builder.mul(each.index, loop.number(4 * _WIDTH)))
                address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
                for vector in range(vectors):
                    query = loop.load(
                        builder.add(address, builder.mul(half_row, loop.number(vector)))
                    )
                    for total, key in zip(totals, key_vectors, strict=True):
                        loop.add_product(total, query, key[vector])
        for row, totals in enumerate(running):
            out = loop.at(scores, builder.mul(stride, loop.number(row)), 4)
            loop.store(loop.sums([builder.load(total) for total in totals]), loop.at(out, first, 4))


def _mix(
    loop: _LoopBuilder,
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
    row_bytes = builder.mul(columns, loop.number(4 // loop.vectors))

    def add_up(begin: Any, reads: int) -> None:
        """Add up a number of vectors of memory, `begin` bytes after a position's first."""
        running = [[loop.zeros() for _ in range(reads * loop.vectors)] for _ in range(rows)]
        for total in (total for totals in running for total in totals):
            builder.store(ir.Constant(_FLOATS, [0.0] * _WIDTH), total)
        with cgutils.for_range(builder, positions) as position:
            value_address = builder.add(
                values, builder.add(builder.mul(position.index, row_bytes), begin)
            )
            parts = []
            for read in range(reads):
                parts += loop.read(builder.add(value_address, loop.number(read * 4 * _WIDTH)))
            for row, totals in enumerate(running):
                row_weights = loop.at(weights, builder.mul(stride, loop.number(row)), 4)
                weight = loop.repeated(loop.at(row_weights, position.index, 4))
                for total, part in zip(totals, parts, strict=True):
                    loop.add_product(total, weight, part)
        for row, totals in enumerate(running):
            address = builder.add(out, begin)
            address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
            for number, total in enumerate(totals):
                read, part = divmod(number, loop.vectors)
                target = builder.add(address, loop.number(read * 4 * _WIDTH))
                target = loop.at(target, half_row, 4 * part) if part else target
                loop.store(builder.load(total), target)

    # As much of a position as registers have sums for, then the rest.
    many = (4 if rows <= _WIDTH // 4 else 2) // loop.vectors
    vectors = builder.udiv(row_bytes, loop.number(4 * _WIDTH))
    whole = builder.udiv(vectors, loop.number(many))
    with cgutils.for_range(builder, whole) as each:
        add_up(builder.mul(each.index, loop.number(many * 4 * _WIDTH)), many)
    done = builder.mul(whole, loop.number(many))
    with cgutils.for_range(builder, builder.sub(vectors, done)) as each:
        add_up(builder.mul(builder.add(done, each.index), loop.number(4 * _WIDTH)), 1)


float_dots, split_bfloat16_dots, bfloat16_dots, float16_dots, scaled_dots = (
    _make_function(_dots, layout) for layout in _Layout
)
"""Dot products, of addresses: `(rows, inputs, first, second, columns, sums, stride)`.

`inputs` are float32 [rows, columns], `first` and `second` two rows of weights [columns], and `sums`
float32 [rows, stride], of which the first two columns are written. `scaled` weights are blocks
[columns / SCALED_BLOCK] of a scale s and an offset o, float32, and integers n, uint8
[SCALED_BLOCK]: each weight is sn + o, or 0 where n is `ZERO_CODE`. For `split_bfloat16` weights the
inputs of even columns come first in each row and then those of odd ones, as two weights are taken
out of one word. A row's sums do not depend on the number of rows, nor, but for `split_bfloat16`, on
the layout of the weights.
"""

float_score, split_bfloat16_score = (
    _make_function(_score, layout) for layout in (_Layout.FLOAT, _Layout.SPLIT_BFLOAT16)
)
"""Dot products, of addresses: `(rows, queries, keys, positions, columns, scores, stride)`.

`queries` are float32 [rows, columns], as the inputs of the dot products above, `keys` [positions,
columns], float32 or bfloat16, and `scores` float32 [rows, stride], of which so many columns are
written as the positions, rounded up to a multiple of `AT_ONCE`.
"""

float_mix, split_bfloat16_mix = (
    _make_function(_mix, layout) for layout in (_Layout.FLOAT, _Layout.SPLIT_BFLOAT16)
)
"""Weighted sums, of addresses: `(rows, weights, stride, values, positions, columns, out)`.

`weights` are float32 [rows, stride], of which the first `positions` columns are read, `values`
[positions, columns], float32 or bfloat16, and `out` float32 [rows, columns]; of bfloat16 values the
even columns come first in each row.
"""
