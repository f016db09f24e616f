"""One look at all logits: what torch's operations find, ours too."""

import numpy as np
import pytest
import torch
from prunetui.engine.cpu.kernels.logits import BLOCK, PART
from prunetui.engine.cpu.runtime.instruction import is_readable
from prunetui.engine.logit_sums import LogitSums
from prunetui.engine.measure import reductions as module
from prunetui.engine.measure.reductions import Reductions
from prunetui.engine.model.outputs import Outputs
from torch import Tensor

from ..support.measures import reduced
from ..support.models import needs_kernels

pytestmark = needs_kernels

SIZES = (1, 7, BLOCK - 1, BLOCK, PART, PART + 1, 5 * PART + 3 * BLOCK + 17)


def by_torch(z: Tensor, k: int, temperature: float) -> Reductions:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "backend_for", lambda *_: None)
        return reduced(z, k, temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_sums_are_their_formulas(size: int, dtype: torch.dtype, temperature: float) -> None:
    z = (torch.randn(5, size, generator=torch.Generator().manual_seed(size)) * 4).to(dtype)
    assert is_readable(z)
    wide = z.double().numpy().astype(np.longdouble)
    e = np.exp((wide - wide.max(axis=1, keepdims=True)) / temperature)
    x, e_x = wide[0], e[0]
    d, r = wide - x, e_x**2
    terms = LogitSums(
        e=e,
        e_y=e * wide,
        e_d=e * d,
        e_e0=e * e_x,
        e_e=e * e,
        e0_d=e_x * d,
        e0_d_d=e_x * d * d,
        e0_e0_d=r * d,
        e0_e0_d_d=r * d * d,
        y=wide,
        x_x=x * x + 0 * wide,
        x_d=x * d,
        d_d=d * d,
    )
    for found in (reduced(z, 3, temperature), by_torch(z, 3, temperature)):
        for sums, term in zip(found.sums.sum(dim=0).T.numpy(), terms, strict=True):
            # To the last digits of the largest partial sum.
            assert np.abs(sums - term.sum(axis=1)).max() <= 1e-14 * np.abs(term).sum(axis=1).max()


@pytest.mark.parametrize("k", [1, 2, 10, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_the_highest_come_in_the_order_of_their_tokens(
    size: int, dtype: torch.dtype, k: int
) -> None:
    """Whole numbers: every lane has its highest many times."""
    generator = torch.Generator().manual_seed(size)
    z = torch.randint(-5, 6, (5, size), generator=generator).to(dtype)
    found = reduced(z, k, 1.0)
    ranked = [sorted(range(size), key=lambda t, row=row: (-row[t], t))[:k] for row in z.tolist()]
    assert found.tokens.tolist() == ranked
    assert torch.equal(found.highest, z.gather(-1, found.tokens).float())


def test_nothing_depends_on_the_number_of_threads() -> None:
    z = torch.randn(3, 9 * PART + 5)
    before, seen = torch.get_num_threads(), []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        seen.append(reduced(z, 12, 0.7))
    torch.set_num_threads(before)
    for found in seen[1:]:
        assert torch.equal(found.sums, seen[0].sums)
        assert torch.equal(found.tokens, seen[0].tokens)


def test_logits_that_are_no_numbers_are_as_to_torch() -> None:
    """NaN is the highest, minus infinity the lowest."""
    z = torch.randn(4, 3 * PART)
    z[0, [7, 5 * BLOCK, 2 * PART]] = float("nan")
    z[1, [9, PART + 9]] = float("inf")
    z[2] = -float("inf")
    z[2, 40] = 1.5
    found, expected = reduced(z, 5, 1.0), by_torch(z, 5, 1.0)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.highest.nan_to_num(), expected.highest.nan_to_num())
    assert found.tokens[0, :3].tolist() == [7, 5 * BLOCK, 2 * PART]
    assert found.tokens[1, :2].tolist() == [9, PART + 9]
    assert found.tokens[2].tolist() == [40, 0, 1, 2, 3]
    ours, torchs = (LogitSums(*each.sums.sum(dim=0).T).e for each in (found, expected))
    assert ours[0].isnan()
    assert ours[2:].tolist() == pytest.approx(torchs[2:].tolist())


def test_logits_that_cannot_be_read_as_they_lie() -> None:
    assert not is_readable(torch.empty(64, 3).T)
    assert not is_readable(torch.empty(3, 64, dtype=torch.float16))
    assert not is_readable(torch.empty(3, 64, device="meta"))
    half = torch.randn(2, 300).half()
    assert torch.equal(reduced(half, 3, 1.0).tokens, reduced(half.float(), 3, 1.0).tokens)


@pytest.mark.parametrize("of_z", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("of_h", [torch.float32, torch.bfloat16])
def test_vectors_of_other_dtypes_and_that_lie_otherwise(
    of_z: torch.dtype, of_h: torch.dtype
) -> None:
    z, h = torch.randn(3, 40).to(of_z), torch.randn(8, 3).to(of_h).T
    streams = torch.randn(3, 5, 8).to(of_h).transpose(0, 1)
    found = module.reduce_logits(Outputs(h, z, streams), 2, 1.0)
    x, d = h[0].double(), h[1:].double() - h[0].double()
    assert torch.allclose(found.h_dots, torch.stack([(x @ x).expand(2), d @ x, (d * d).sum(-1)]))
    wide = streams[1:].double()
    of_points = (wide[:, 1:] - wide[:, :1]).square().sum(dim=-1)
    assert torch.allclose(found.stream_dots[2], of_points)
    assert torch.allclose(LogitSums(*found.sums.sum(dim=0).T).y, z.double().sum(dim=-1))
