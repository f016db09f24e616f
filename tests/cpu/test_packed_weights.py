"""Weights of float32 in fewer bytes: which can be, that nothing is lost, and products of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from prunetui.engine.cpu.kernels.linear import MAX_ROWS
from prunetui.engine.cpu.kernels.packing import PackedWeight
from prunetui.engine.cpu.linears import FastLinear
from prunetui.engine.cpu.packed_weights import pack_weight, unpack_weight
from torch import Tensor

from ..support.models import needs_kernels

pytestmark = needs_kernels

ROWS, COLUMNS = 50, 512
LEGACY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K = {"Q2_K": (84, 80), "Q3_K": (110, 108), "Q4_K": (144, 0), "Q5_K": (176, 0), "Q6_K": (210, 208)}
"""Bytes of a block of 256 weights, and where its float16 scale is; a second one may be behind."""
SCALED, HALF = 1.5, 2.0
"""Bytes per weight."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random() -> Tensor:
    return torch.randn(ROWS, COLUMNS) / 50


def of_gguf(name: str) -> Tensor:
    """Weights as transformers reads them of a file of such a type."""
    kind = GGMLQuantizationType[name]
    if name in LEGACY:
        quantized = quants.quantize(random().numpy(), kind)
    else:
        size, scale = K[name]
        quantized = np.random.default_rng(0).integers(
            0, 256, (ROWS, COLUMNS // 256, size), np.uint8
        )
        places = (scale, scale + 2) if name in ("Q2_K", "Q4_K", "Q5_K") else (scale,)
        for place in places:
            scales = (torch.rand(ROWS, COLUMNS // 256) / 1000).half().numpy()
            quantized[..., place : place + 2] = scales[..., None].view(np.uint8)
        quantized = quantized.reshape(ROWS, -1)
    return torch.from_numpy(np.array(quants.dequantize(quantized, kind)))


def half_zero(weight: Tensor) -> Tensor:
    """As Wanda leaves it."""
    return weight.masked_fill(torch.rand(weight.shape) < 0.5, 0)


def all_of(dtype: torch.dtype) -> Tensor:
    """Each number but NaN, in any order: subnormal ones, infinities and both zeros too."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype).float()
    every[every.isnan()] = 0
    return every[torch.randperm(len(every))].view(-1, COLUMNS)


NARROW: dict[str, tuple[float, Callable[[], Tensor]]] = {
    **{name: (SCALED, lambda name=name: of_gguf(name)) for name in (*LEGACY, *K)},
    **{
        f"{name}, half 0": (SCALED, lambda name=name: half_zero(of_gguf(name)))
        for name in ("Q4_0", "Q4_1", "Q5_1", "Q8_0")
    },
    "bfloat16": (HALF, lambda: random().bfloat16().float()),
    "float16": (HALF, lambda: random().half().float()),
    "half 0": (HALF, lambda: half_zero(random()).bfloat16().float()),
    "all bfloat16": (HALF, lambda: all_of(torch.bfloat16)),
    "all float16": (HALF, lambda: all_of(torch.float16)),
    "0": (SCALED, lambda: torch.zeros(ROWS, COLUMNS)),
    "-0": (SCALED, lambda: torch.full((ROWS, COLUMNS), -0.0)),
    "one number": (SCALED, lambda: torch.full((ROWS, COLUMNS), 0.3)),
    "two numbers": (SCALED, lambda: torch.where(torch.rand(ROWS, COLUMNS) < 0.5, 0.5, -0.3)),
}


@pytest.mark.parametrize("kind", NARROW)
def test_nothing_is_lost(kind: str) -> None:
    size, make = NARROW[kind]
    weight = make()
    before = weight.clone()
    narrow = pack_weight(weight)
    assert isinstance(narrow, PackedWeight)
    assert (narrow.nbytes, narrow.shape) == (size * weight.numel(), weight.shape)
    assert torch.equal(unpack_weight(narrow), before)
    assert torch.equal(weight, before)


def a_number_more(weight: Tensor, number: float) -> Tensor:
    weight[-1, -1] = number
    return weight


@pytest.mark.parametrize(
    "make",
    [
        random,
        lambda: half_zero(random()),
        lambda: a_number_more(of_gguf("Q4_0"), 1 / 3),
        lambda: a_number_more(random().bfloat16().float(), 1 / 3),
        lambda: a_number_more(random().half().float(), 2.0**-25),
        lambda: a_number_more(of_gguf("Q4_0"), float("nan")),
        lambda: a_number_more(random().half().float(), float("nan")),
    ],
)
def test_what_would_be_another_number_stays_as_it_is(make: Callable[[], Tensor]) -> None:
    weight = make()
    assert pack_weight(weight) is weight


def test_bfloat16_is_not_looked_at() -> None:
    weight = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16)
    assert pack_weight(weight) is weight


@pytest.mark.parametrize(
    "kind", ["Q4_1", "Q4_1, half 0", "bfloat16", "float16", "all float16", "all bfloat16"]
)
@pytest.mark.parametrize("rows", [1, 5, MAX_ROWS])
def test_products_are_those_of_the_wide_weights_to_the_last_bit(kind: str, rows: int) -> None:
    weight = NARROW[kind][1]()
    bias = torch.randn(len(weight))
    x = torch.randn(rows, COLUMNS)
    narrow = pack_weight(weight)
    assert isinstance(narrow, PackedWeight)
    ours, wide = FastLinear(narrow, bias)(x), FastLinear(weight, bias)(x)
    assert torch.equal(ours.view(torch.int32), wide.view(torch.int32))
