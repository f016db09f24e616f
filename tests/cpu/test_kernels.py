"""What a step computes on a CPU, against the formulas in float64."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numba import cfunc, njit, types
from prunetui.engine.cpu.kernels import scalars
from prunetui.engine.cpu.kernels.attention import (
    CAPACITY,
    COS,
    KEY_CACHE,
    LENGTH,
    PART,
    PART_RESULTS,
    READ_COUNTS,
    SHARED_PREFIXES,
    SIN,
    VALUE_CACHE,
    attention_instructions,
    attention_scratch_size,
    part_results_size,
)
from prunetui.engine.cpu.kernels.linear import (
    MAX_ROWS,
    RESIDUAL,
    can_multiply,
    linear_instruction,
    linear_scratch_size,
)
from prunetui.engine.cpu.runtime import compile_cache
from prunetui.engine.cpu.runtime.instruction import INPUT, OUTPUT, ROWS, Instruction
from prunetui.engine.cpu.runtime.interpreter import Interpreter
from torch import Tensor
from torch.nn.functional import silu

from ..support.models import needs_kernels

pytestmark = needs_kernels

DTYPES = [torch.float32, torch.bfloat16]
COLUMNS = 96
SIZES = (64, 33, 190)
"""Outputs of layers that read the same: an odd number, and more than are finished at once."""
EPS = 1e-5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _threads() -> Iterator[None]:
    """As many as before, behind a test that changes the number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def close(ours: Tensor, exact: Tensor) -> bool:
    """To the dtype's last places, for sums of about a hundred terms."""
    relative, least = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (2**-7, 2**-6)}[ours.dtype]
    return torch.allclose(ours.double(), exact, rtol=relative, atol=least)


def layers(dtype: torch.dtype) -> list[tuple[Tensor, Tensor | None]]:
    biases = [torch.randn(SIZES[0]).to(dtype), None, torch.randn(SIZES[2]).to(dtype)]
    weights = [(torch.randn(size, COLUMNS) / 8).to(dtype) for size in SIZES]
    return list(zip(weights, biases, strict=True))


def exact(x: Tensor, of: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    return torch.cat(
        [x @ w.double().T + (0 if bias is None else bias.double()) for w, bias in of], dim=-1
    )


def run(instruction: Instruction, x: Tensor, residual: Tensor | None = None) -> Tensor:
    out = x.new_empty(len(x), sum(SIZES))
    interpreter = Interpreter([instruction], x.dtype)
    (fields,) = interpreter.table
    fields[ROWS], fields[INPUT], fields[OUTPUT] = len(x), x.data_ptr(), out.data_ptr()
    fields[RESIDUAL] = 0 if residual is None else residual.data_ptr()
    interpreter.run(linear_scratch_size(len(x), COLUMNS))
    return out


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 12, 13, MAX_ROWS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_is_the_formula(dtype: torch.dtype, rows: int) -> None:
    of, x = layers(dtype), torch.randn(rows, COLUMNS).to(dtype)
    assert close(run(linear_instruction(of), x), exact(x.double(), of))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_it_reads_can_be_normed(dtype: torch.dtype) -> None:
    of, x = layers(dtype), (torch.randn(5, COLUMNS) * 3).to(dtype)
    weight = (torch.rand(COLUMNS) + 0.5).to(dtype)
    wide = x.double()
    normed = wide / (wide.square().mean(dim=-1, keepdim=True) + EPS).sqrt()
    if dtype == torch.bfloat16:  # the stock norm rounds before its weight, and behind it
        normed = normed.bfloat16().double()
    normed = (weight.double() * normed).to(dtype).double()
    assert close(run(linear_instruction(of, norm=(weight, EPS)), x), exact(normed, of))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_it_reads_can_be_gated(dtype: torch.dtype) -> None:
    of, both = layers(dtype), (torch.randn(5, 2 * COLUMNS) * 3).to(dtype)
    gate, up = both.chunk(2, dim=-1)
    gated = silu(gate.double()).to(dtype).double() * up.double()
    assert close(run(linear_instruction(of, gated=True), both), exact(gated.to(dtype).double(), of))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_it_writes_is_added_to_the_stream_but_for_closed_rows(dtype: torch.dtype) -> None:
    of, x = layers(dtype), torch.randn(5, COLUMNS).to(dtype)
    stream = torch.randn(5, sum(SIZES)).to(dtype)
    closed = torch.tensor([False, True, False, True, True])
    ours = run(linear_instruction(of, closed=closed), x, stream)
    assert torch.equal(ours[closed], stream[closed])
    added = run(linear_instruction(of), x)
    assert torch.equal(ours[~closed], (stream + added)[~closed])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_depends_on_no_other_row_nor_on_the_threads(dtype: torch.dtype) -> None:
    of, x = layers(dtype), torch.randn(MAX_ROWS, COLUMNS).to(dtype)
    instruction = linear_instruction(of, norm=(torch.ones(COLUMNS, dtype=dtype), EPS))
    together = run(instruction, x)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        for rows in range(1, MAX_ROWS + 1):
            assert torch.equal(run(instruction, x[:rows]), together[:rows])
        assert torch.equal(run(instruction, x[5:6]), together[5:6])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    of, x = layers(dtype), torch.randn(3, COLUMNS).to(dtype)
    x[0, 7], x[1, 7] = float("nan"), float("inf")
    ours = run(linear_instruction(of), x)
    assert ours[0].isnan().all()
    expected = (x[1] @ torch.cat([weight for weight, _ in of]).T).isinf()
    assert expected.any()
    assert torch.equal(ours[1].isinf(), expected)
    assert ours[2].isfinite().all()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_of_nothing_is_no_number_and_stops_no_thread(dtype: torch.dtype) -> None:
    """0 over 0, as the stock norm has it; the other row goes on."""
    torch.set_num_threads(2)
    of, x = layers(dtype), torch.randn(2, COLUMNS).to(dtype)
    instruction = linear_instruction(of, norm=(torch.ones(COLUMNS, dtype=dtype), 0.0))
    expected = run(instruction, x)[1]
    x[0] = 0
    ours = run(instruction, x)
    assert ours[0].isnan().all()
    assert torch.equal(ours[1], expected)
    heads = torch.randn(1, 4, 32).to(dtype)
    heads[:, 2] = 0  # the first of two keys, and so of two threads
    keys, values = torch.randn(2, 1, 2, 5, 32).to(dtype)
    ones = torch.ones(32, dtype=dtype)
    heads = torch.cat((heads, heads[:, 2:]), dim=1)
    attended = attend(
        attention_instructions(2, 2, 32, 1.0, (ones, ones, 0.0)),
        heads,
        keys,
        values,
        torch.rand(2, 32),
    )
    assert attended[:, 0].isnan().all()
    assert attended[:, 1].isfinite().all()


def compile_nothing(**caching: Any) -> Any:
    return cfunc(types.void(), **caching)(nothing)


def nothing() -> None:
    pass


def test_what_was_kept_compiled_and_is_damaged_is_compiled_anew(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(compile_cache, "cache_directory", lambda: tmp_path)
    assert compile_cache.compile_cached(compile_nothing).address
    files = [*tmp_path.rglob("*.nb?")]
    assert {file.suffix for file in files} == {".nbi", ".nbc"}
    for file in files:
        file.write_bytes(b"")
    assert compile_cache.compile_cached(compile_nothing).address
    assert not tmp_path.exists()
    monkeypatch.setattr(compile_cache, "cache_directory", lambda: None)
    assert compile_cache.compile_cached(compile_nothing).address


def test_weights_that_cannot_be_read_as_they_lie() -> None:
    assert can_multiply(torch.empty(3, 64))
    assert not can_multiply(torch.empty(3, 48))
    assert not can_multiply(torch.empty(64, 3).T)
    assert not can_multiply(torch.empty(3, 64, dtype=torch.float16))
    assert not can_multiply(torch.empty(3, 64, device="meta"))


def test_rounding_to_bfloat16_is_torchs() -> None:
    words = torch.randint(-(2**31), 2**31, (200_000,)).to(torch.int32)
    halves = torch.arange(-(2**15), 2**15).to(torch.int32) << 16
    words = torch.cat((words, halves, halves | 0x8000, halves | 0x7FFF, halves | 0x8001))
    expected = words.view(torch.float32).bfloat16().float()
    rounded = words.clone()
    njit(lambda address, count: scalars.round_all(address, count))(rounded.data_ptr(), len(rounded))
    ours = rounded.view(torch.float32)
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours[~ours.isnan()], expected[~ours.isnan()])


def test_the_exponential_and_silu_are_right_to_the_last_places() -> None:
    exp, gate = (njit(lambda x, f=f: f(x)) for f in (scalars.exp, scalars.silu))
    x = -np.geomspace(1e-6, 87, 20_001, dtype=np.float32)
    ours = np.array([exp(each) for each in x])
    assert np.abs(ours / np.exp(x.astype(np.float64)) - 1).max() < 2.5e-7
    assert exp(np.float32(0)) == 1
    assert exp(np.float32(-88)) == exp(np.float32(-np.inf)) == 0
    assert np.isnan(exp(np.float32(np.nan)))
    x = np.concatenate((x, -x)).astype(np.float64)
    ours = np.array([gate(np.float32(each)) for each in x])
    assert np.allclose(ours, x / (1 + np.exp(-x)), rtol=5e-7, atol=0)


def test_the_exponential_of_float64_is_right_to_the_last_places() -> None:
    exp = njit(lambda x: scalars.exp64(x))
    x = -np.geomspace(1e-12, 708, 20_001)
    ours = np.array([exp(each) for each in x])
    # Longer floats have the digits that a comparison needs.
    exact = np.exp(x.astype(np.longdouble))
    assert np.abs(ours / exact - 1).max() < 4.5e-16
    assert exp(0.0) == 1
    assert exp(-709.0) == exp(-np.inf) == 0
    assert np.isnan(exp(np.nan))


CASES = {
    "shared keys": (9, 3, 64, 5, 100),
    "a key head each": (4, 4, 32, 2, 7),
    "many queries": (10, 1, 96, 1, 301),
    "more queries than rows at once": (14, 1, 96, 1, 30),
    "the first position": (14, 2, 128, 3, 1),
    "a part": (4, 2, 32, 2, PART),
    "a position more": (9, 3, 64, 2, PART + 1),
    "three parts": (6, 2, 32, 2, 2 * PART + 77),
}
"""Heads of queries and of keys, their width, rows and positions."""


def attend(
    instructions: list[Instruction],
    heads: Tensor,
    keys: Tensor,
    values: Tensor,
    turn: Tensor,
    common: Tensor | None = None,
    read: Tensor | None = None,
) -> Tensor:
    """keys and values: [rows, key heads, positions, width], the last position to be written."""
    rows, key_heads, positions, width = keys.shape
    common = torch.zeros(rows, 1 + key_heads, dtype=torch.int64) if common is None else common
    read = torch.zeros(torch.get_num_threads(), dtype=torch.int64) if read is None else read
    queries = heads.shape[1] - 2 * key_heads
    out = heads.new_empty(rows, queries, width)
    parts = torch.empty(part_results_size(rows, queries, width, positions))
    interpreter = Interpreter(instructions, heads.dtype)
    for fields in interpreter.table:
        fields[[ROWS, LENGTH, CAPACITY]] = rows, positions, positions
        fields[[INPUT, OUTPUT]] = heads.data_ptr(), out.data_ptr()
        fields[[KEY_CACHE, VALUE_CACHE]] = keys.data_ptr(), values.data_ptr()
        fields[[COS, SIN, PART_RESULTS]] = turn[0].data_ptr(), turn[1].data_ptr(), parts.data_ptr()
        fields[[SHARED_PREFIXES, READ_COUNTS]] = common.data_ptr(), read.data_ptr()
    interpreter.run(attention_scratch_size(width))
    return out


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_is_the_formula(dtype: torch.dtype, case: str, normed: bool) -> None:
    queries, key_heads, width, rows, positions = CASES[case]
    heads = (torch.randn(rows, queries + 2 * key_heads, width) * 2).to(dtype)
    keys, values = torch.randn(2, rows, key_heads, positions, width).to(dtype)
    angles = (torch.rand(width // 2) * 6).repeat(2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    sin[: width // 2] *= -1
    norms = (torch.rand(2, width) + 0.5).to(dtype) if normed else None
    scaling = width**-0.5

    def rounded(x: Tensor) -> Tensor:
        return x.to(dtype).double()

    def turned(x: Tensor, norm: Tensor | None) -> Tensor:
        x = x.double()
        if norm is not None:
            x = rounded(x / (x.square().mean(dim=-1, keepdim=True) + EPS).sqrt())
            x = rounded(norm.double() * x)
        there = x.roll(width // 2, dims=-1)
        return rounded(rounded(x * cos.double()) + rounded(there * sin.double()))

    q, k, v = heads.split((queries, key_heads, key_heads), dim=1)
    q_norm, k_norm = (None, None) if norms is None else norms
    q, k = turned(q, q_norm), turned(k, k_norm)
    all_keys, all_values = keys.double(), values.double()
    all_keys[:, :, -1], all_values[:, :, -1] = k, v.double()
    shared = queries // key_heads
    scores = torch.einsum("rgsd,rgpd->rgsp", q.view(rows, key_heads, shared, width), all_keys).mul(
        scaling
    )
    exact = torch.einsum("rgsp,rgpd->rgsd", scores.softmax(dim=-1), all_values)

    given = None if norms is None else (norms[0], norms[1], EPS)
    instructions = attention_instructions(queries, key_heads, width, scaling, given)
    ours = attend(instructions, heads, keys, values, torch.stack((cos, sin)).float())
    assert close(ours, exact.reshape(rows, queries, width))
    assert close(keys[:, :, -1], k)
    assert torch.equal(values[:, :, -1], v)
    # And nothing else of the cache is written.
    assert torch.equal(keys[:, :, :-1].double(), all_keys[:, :, :-1])
    assert torch.equal(values[:, :, :-1].double(), all_values[:, :, :-1])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_attends_the_same_whatever_stands_beside_it(dtype: torch.dtype) -> None:
    heads = torch.randn(6, 15, 64).to(dtype)
    keys, values = torch.randn(2, 6, 3, PART + 50, 64).to(dtype)
    turn = torch.rand(2, 64)
    instructions = attention_instructions(9, 3, 64, 0.125)
    together = attend(instructions, heads, keys, values, turn)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for rows in range(1, 7):
            alone = attend(instructions, heads[:rows], keys[:rows], values[:rows], turn)
            assert torch.equal(alone, together[:rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rows_hold_in_common_is_read_from_one(dtype: torch.dtype) -> None:
    length = 3 * PART + 50
    heads = torch.randn(5, 15, 64).to(dtype)
    keys, values = torch.randn(2, 5, 3, length, 64).to(dtype)
    # Row 1 is as row 0 up to a part and some more, row 2 as row 1 for another part, row 4 as row 3
    # to the end, the new position included.
    common = torch.zeros(5, 1 + 3, dtype=torch.int64)
    heads[4, 9:] = heads[3, 9:]
    for row, other, positions in ((1, 0, PART + 30), (2, 1, 2 * PART), (4, 3, length - 1)):
        common[row, 0], common[row, 1:] = other, positions
        for held in (keys, values):
            held[row, :, :positions] = held[other, :, :positions]
    turn = torch.rand(2, 64)
    instructions = attention_instructions(9, 3, 64, 0.125)
    apart = attend(instructions, heads, keys, values, turn)
    # What is not to be read.
    for held in (keys, values):
        held[1, :, :PART] = held[2, :, : 2 * PART] = held[4] = float("nan")
    read = torch.zeros(torch.get_num_threads(), dtype=torch.int64)
    assert torch.equal(attend(instructions, heads, keys, values, turn, common, read), apart)
    assert read.sum() == 3 * (4 * length - 3 * PART)
    assert common[:, 1:].tolist() == [[n] * 3 for n in (0, PART + 30, 2 * PART, 0, length)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rows_hold_in_common_grows_by_the_same_keys_and_values(dtype: torch.dtype) -> None:
    heads = torch.randn(1, 6, 32).to(dtype).repeat(5, 1, 1)
    keys, values = torch.randn(2, 1, 2, 10, 32).to(dtype).repeat(1, 5, 1, 1, 1)
    # Queries are no matter; the key of one head, the value of the other.
    heads[1, 0], heads[2, 2], heads[3, 5] = 3, 3, 3
    common = torch.tensor([[0, 0, 0], [0, 9, 9], [0, 9, 9], [0, 9, 8], [1, 12, 3]])
    attend(attention_instructions(2, 2, 32, 1.0), heads, keys, values, torch.rand(2, 32), common)
    # More than nine had been read when positions were cut off: that much is forgotten.
    assert common.tolist() == [[0, 0, 0], [0, 10, 10], [0, 9, 10], [0, 10, 8], [1, 10, 3]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_closed_rows_attend_to_nothing(dtype: torch.dtype) -> None:
    heads = torch.randn(3, 6, 32).to(dtype)
    keys, values = torch.randn(2, 3, 2, 2 * PART, 32).to(dtype)
    turn = torch.rand(2, 32)
    exact = attend(attention_instructions(2, 2, 32, 1.0), heads, keys, values, turn)
    keys[1] = float("nan")
    read = torch.zeros(torch.get_num_threads(), dtype=torch.int64)
    closed = torch.tensor([False, True, False])
    instructions = attention_instructions(2, 2, 32, 1.0, closed=closed)
    ours = attend(instructions, heads, keys, values, turn, read=read)
    assert torch.equal(ours[::2], exact[::2])
    assert torch.equal(ours[1], torch.zeros_like(ours[1]))
    assert read.sum() == 2 * 2 * 2 * PART
    # Their keys and values are kept.
    assert keys[1, :, -1].isfinite().all()


def test_what_a_closed_row_holds_for_others_is_read_once() -> None:
    heads = torch.randn(1, 6, 32).repeat(4, 1, 1)
    keys, values = torch.randn(2, 1, 2, 2 * PART, 32).repeat(1, 4, 1, 1, 1)
    common = torch.tensor([[0, 0, 0], [0, 0, 0], *[[1, 2 * PART - 1, 2 * PART - 1]] * 2])
    read = torch.zeros(torch.get_num_threads(), dtype=torch.int64)
    closed = torch.tensor([False, True, False, False])
    instructions = attention_instructions(2, 2, 32, 1.0, closed=closed)
    ours = attend(instructions, heads, keys, values, torch.rand(2, 32), common, read)
    assert torch.equal(ours[2], ours[0])
    # Row 0's, and row 1's for rows 2 and 3.
    assert read.sum() == 2 * 2 * 2 * PART


def test_scores_that_are_no_numbers_give_none() -> None:
    heads = torch.randn(2, 3, 32)
    keys, values = torch.randn(2, 2, 1, 20, 32)
    keys[0, 0, 3, 5] = float("nan")
    ours = attend(attention_instructions(1, 1, 32, 1.0), heads, keys, values, torch.rand(2, 32))
    assert ours[0].isnan().all()
    assert ours[1].isfinite().all()


def test_tasks_of_a_program_follow_one_another() -> None:
    """Each reads what the one before has written, on all threads."""
    weights = [torch.randn(COLUMNS, COLUMNS) / 8 for _ in range(20)]
    interpreter = Interpreter(
        [linear_instruction([(weight, None)]) for weight in weights], torch.float32
    )
    states = torch.empty(len(weights) + 1, 3, COLUMNS)
    states[0] = torch.randn(3, COLUMNS)
    places = states.data_ptr() + states[0].nbytes * np.arange(len(states))
    interpreter.table[:, ROWS] = 3
    interpreter.table[:, INPUT], interpreter.table[:, OUTPUT] = places[:-1], places[1:]
    for _ in range(50):
        states[1:] = float("nan")
        interpreter.run(linear_scratch_size(3, COLUMNS))
        for weight, x, y in zip(weights, states, states[1:], strict=False):
            assert torch.allclose(y, x @ weight.T, rtol=1e-4, atol=1e-4)
