"""The loops that read weights, keys and values, for compiled functions.

Written in LLVM's own terms, as compilers find neither the width nor the reach that it takes to read
at the memory's pace.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AT_ONCE = 4
"""Positions."""
STRIDE = 32
"""What the number of columns must be a multiple of."""
SCALED = 16
"""Weights that share a scale and an offset."""
SCALED_BYTES = 8 + SCALED
ZERO = 255
"""The integer that stands for 0, which need be no number of scales away from an offset."""

_WIDTH = 16 if binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers per vector."""
MOST = 12 if _WIDTH == 16 else 8
"""Rows at once: processors have registers for the sums of no more."""
_AHEAD = 8192
"""Bytes that are asked for ahead: by itself a processor does not look past a page."""

_F32, _I64 = ir.FloatType(), ir.IntType(64)
_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_FLOATS, _WORDS = ir.VectorType(_F32, _WIDTH), ir.VectorType(_I32, _WIDTH)
_FLOAT16S = ir.VectorType(ir.HalfType(), _WIDTH)
_HALVES, _BYTES = ir.VectorType(_I16, _WIDTH), ir.VectorType(_I8, _WIDTH)


class _Form(Enum):
    """What numbers are in memory."""

    FLOAT = "float32"
    HALF = "bfloat16, of as many words the even columns and then the odd ones"
    BFLOAT16 = "bfloat16, in order"
    FLOAT16 = "float16, in order"
    SCALED = "a scale and an offset, float32, and uint8, in order"


def fuses() -> bool:
    """Whether the processor multiplies and adds at once, without which scaled numbers are slow."""
    features = binding.get_host_cpu_features()
    return features.get("fma", "neon" in features)


def _function(body: Callable[..., None], form: _Form) -> Callable[..., Any]:
    """Of `rows` and six integers more; does nothing for other than 1 to `MOST` rows."""
    name = f"prunetui{body.__name__}_{form.name}"
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
            body(_Loop(builder, form), count, *others)
            builder.branch(done)
        builder.position_at_end(done)
        builder.ret_void()

    return function


class _Loop:
    """What the loops are made of."""

    def __init__(self, builder: Any, form: _Form) -> None:
        self.builder, self.form = builder, form
        self.vectors = {_Form.FLOAT: 1, _Form.SCALED: SCALED // _WIDTH}.get(form, 2)
        """Of float32 in one read."""
        self.bytes = SCALED_BYTES if form is _Form.SCALED else 4 * _WIDTH
        """Of one read."""

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
        if self.form is _Form.FLOAT:
            return [self.load(address)]
        if self.form is _Form.HALF:
            words = self.load(address, _WORDS)
            even = self.builder.shl(words, ir.Constant(_WORDS, [16] * _WIDTH))
            odd = self.builder.and_(words, ir.Constant(_WORDS, [0xFFFF0000] * _WIDTH))
            return [self.builder.bitcast(part, _FLOATS) for part in (even, odd)]
        if self.form in (_Form.BFLOAT16, _Form.FLOAT16):
            return [self._widened(self.at(address, self.number(i), 2 * _WIDTH)) for i in range(2)]
        scale, offset = self.repeated(address), self.repeated(self.at(address, self.number(1), 4))
        first = self.builder.add(address, self.number(8))
        places = [self.at(first, self.number(i), _WIDTH) for i in range(SCALED // _WIDTH)]
        return [self._scaled(place, scale, offset) for place in places]

    def _widened(self, address: Any) -> Any:
        if self.form is _Form.FLOAT16:
            return self.builder.fpext(self.load(address, _FLOAT16S), _FLOATS)
        words = self.builder.zext(self.load(address, _HALVES), _WORDS)
        words = self.builder.shl(words, ir.Constant(_WORDS, [16] * _WIDTH))
        return self.builder.bitcast(words, _FLOATS)

    def _scaled(self, address: Any, scale: Any, offset: Any) -> Any:
        words = self.builder.zext(self.load(address, _BYTES), _WORDS)
        fma = self._declared(f"llvm.fma.v{_WIDTH}f32", _FLOATS, *[_FLOATS] * 3)
        steps = self.builder.sitofp(words, _FLOATS)
        number = self.builder.call(fma, (steps, scale, offset))
        is_zero = self.builder.icmp_unsigned("==", words, ir.Constant(_WORDS, [ZERO] * _WIDTH))
        return self.builder.select(is_zero, ir.Constant(_FLOATS, [0.0] * _WIDTH), number)

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

    def sums(self, vectors: list[Any]) -> Any:
        """A vector of the sums of a power of two of vectors: together they take fewer shuffles."""
        size = _WIDTH
        while len(vectors) > 1:
            half = size // 2
            low = [i for i in range(2 * _WIDTH) if i % size < half]
            high = [i + half for i in low]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self._folded(one, other, low, high) for one, other in pairs]
            size = half
        (vector,) = vectors
        half, order = size // 2, range(_WIDTH)
        while half:
            vector = self._folded(vector, vector, order, [i ^ half for i in order])
            half //= 2
        return self._shuffled(vector, vector, range(0, _WIDTH, size))

    def _folded(self, one: Any, other: Any, low: Iterable[int], high: Iterable[int]) -> Any:
        return self.builder.fadd(self._shuffled(one, other, low), self._shuffled(one, other, high))

    def repeated(self, address: Any) -> Any:
        """A vector of one number."""
        none = ir.Constant(_FLOATS, ir.Undefined)
        first = self.builder.insert_element(none, self.load(address, _F32), ir.Constant(_I32, 0))
        return self._shuffled(first, none, [0] * _WIDTH)

    def _shuffled(self, one: Any, other: Any, places: Iterable[int]) -> Any:
        places = [*places]
        mask = ir.Constant(ir.VectorType(_I32, len(places)), places)
        return self.builder.shuffle_vector(one, other, mask)

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
    vectors, halves = loop.vectors, loop.form is _Form.HALF
    # Of inputs, from one read to the next and between the vectors of one, in bytes.
    step = loop.number(4 * _WIDTH * (1 if halves else vectors))
    apart = builder.mul(columns, loop.number(2)) if halves else loop.number(4 * _WIDTH)
    reads = builder.udiv(columns, loop.number(vectors * _WIDTH))
    with cgutils.for_range(builder, reads) as each:
        offset = builder.mul(each.index, loop.number(loop.bytes))
        weights = [loop.read(builder.add(row, offset)) for row in (first, second)]
        for row, places in enumerate(running):
            address = builder.add(inputs, builder.mul(each.index, step))
            address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
            values = [
                loop.load(builder.add(address, builder.mul(apart, loop.number(vector))))
                for vector in range(vectors)
            ]
            for place, of_row in zip(places, weights, strict=True):
                for value, weight in zip(values, of_row, strict=True):
                    loop.add_product(place, value, weight)
    for row, places in enumerate(running):
        of_row = loop.at(sums, builder.mul(stride, loop.number(row)), 4)
        for column, place in enumerate(places):
            loop.store(loop.sum(place), builder.add(of_row, loop.number(4 * column)))


def _score(
    loop: _Loop,
    rows: int,
    queries: Any,
    keys: Any,
    positions: Any,
    columns: Any,
    scores: Any,
    stride: Any,
) -> None:
    builder = loop.builder
    # As many at once as registers have sums for.
    many = AT_ONCE if rows <= _WIDTH * 3 // 8 else 2
    vectors, halves = loop.vectors, loop.form is _Form.HALF
    row_bytes = builder.mul(columns, loop.number(2 if halves else 4))
    half_row = builder.mul(columns, loop.number(2))
    last = builder.sub(positions, loop.number(1))
    running = [[loop.zeros() for _ in range(many)] for _ in range(rows)]
    groups = builder.udiv(builder.add(last, loop.number(many)), loop.number(many))
    with cgutils.for_range(builder, groups) as group:
        first = builder.mul(group.index, loop.number(many))
        held = []
        for i in range(many):
            position = builder.add(first, loop.number(i))
            # Behind the last one it is scored again.
            position = builder.select(builder.icmp_signed("<", position, last), position, last)
            held.append(builder.add(keys, builder.mul(position, row_bytes)))
        for place in (place for places in running for place in places):
            builder.store(ir.Constant(_FLOATS, [0.0] * _WIDTH), place)
        reads = builder.udiv(row_bytes, loop.number(loop.bytes))
        with cgutils.for_range(builder, reads) as each:
            offset = builder.mul(each.index, loop.number(loop.bytes))
            keys_here = [loop.read(builder.add(row, offset)) for row in held]
            for row, places in enumerate(running):
                address = builder.add(queries, builder.mul(each.index, loop.number(4 * _WIDTH)))
                address = loop.at(address, builder.mul(columns, loop.number(row)), 4)
                for vector in range(vectors):
                    query = loop.load(
                        builder.add(address, builder.mul(half_row, loop.number(vector)))
                    )
                    for place, key in zip(places, keys_here, strict=True):
                        loop.add_product(place, query, key[vector])
        for row, places in enumerate(running):
            out = loop.at(scores, builder.mul(stride, loop.number(row)), 4)
            loop.store(loop.sums([builder.load(place) for place in places]), loop.at(out, first, 4))


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
    row_bytes = builder.mul(columns, loop.number(4 // loop.vectors))

    def add_up(begin: Any, reads: int) -> None:
        """So many vectors of memory, `begin` bytes behind a position's first."""
        running = [[loop.zeros() for _ in range(reads * loop.vectors)] for _ in range(rows)]
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
                read, part = divmod(number, loop.vectors)
                behind = builder.add(address, loop.number(read * 4 * _WIDTH))
                behind = loop.at(behind, half_row, 4 * part) if part else behind
                loop.store(builder.load(place), behind)

    # As much of a position as registers have sums for, then the rest.
    many = (4 if rows <= _WIDTH // 4 else 2) // loop.vectors
    vectors = builder.udiv(row_bytes, loop.number(4 * _WIDTH))
    whole = builder.udiv(vectors, loop.number(many))
    with cgutils.for_range(builder, whole) as each:
        add_up(builder.mul(each.index, loop.number(many * 4 * _WIDTH)), many)
    done = builder.mul(whole, loop.number(many))
    with cgutils.for_range(builder, builder.sub(vectors, done)) as each:
        add_up(builder.mul(builder.add(done, each.index), loop.number(4 * _WIDTH)), 1)


float_dots, half_dots, bfloat16_dots, float16_dots, scaled_dots = (
    _function(_dots, form) for form in _Form
)
"""Dot products, of addresses: `(rows, inputs, first, second, columns, sums, stride)`.

`inputs` are float32 [rows, columns], `first` and `second` two rows of weights [columns], and `sums`
float32 [rows, stride], of which the first two columns are written. `scaled` weights are [columns /
`SCALED`] of a scale s and an offset o, float32, and integers n, uint8 [`SCALED`]: each is sn + o,
or 0 where n is `ZERO`. For `half` ones, bfloat16, the inputs of even columns come first in each row
and then those of odd ones, as two weights are taken out of one word. What a row's sums are does not
depend on how many rows there are, and but for `half` weights not on the form that they are in.
"""

float_score, half_score = (_function(_score, form) for form in (_Form.FLOAT, _Form.HALF))
"""Dot products, of addresses: `(rows, queries, keys, positions, columns, scores, stride)`.

`queries` are float32 [rows, columns], as the inputs of the dot products above, `keys` [positions,
columns], float32 or bfloat16, and `scores` float32 [rows, stride], of which so many columns are
written as the positions, rounded up to a multiple of `AT_ONCE`.
"""

float_mix, half_mix = (_function(_mix, form) for form in (_Form.FLOAT, _Form.HALF))
"""Weighted sums, of addresses: `(rows, weights, stride, values, positions, columns, out)`.

`weights` are float32 [rows, stride], of which the first `positions` columns are read, `values`
[positions, columns], float32 or bfloat16, and `out` float32 [rows, columns]; of bfloat16 values the
even columns come first in each row.
"""
