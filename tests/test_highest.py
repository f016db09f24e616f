"""The highest logits by blocks are those of the whole rows."""

import pytest
import torch
from prunetui.engine.highest import BLOCK, argmax, topk
from torch import Tensor

SIZES = (1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 40 * BLOCK + 17)


def logits(size: int, dtype: torch.dtype) -> Tensor:
    """Whole numbers from -5 to 5: every row has its highest many times."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(-5, 6, (5, size), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_argmax_is_the_first_of_equal_ones(size: int, dtype: torch.dtype):
    z = logits(size, dtype)
    first = [row.index(max(row)) for row in z.tolist()]
    assert argmax(z).tolist() == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [1, 2, 10, 600])
def test_topk_has_the_highest_each_once(size: int, dtype: torch.dtype, k: int):
    z = logits(size, dtype)
    values, tokens = topk(z, k)
    assert values.tolist() == [sorted(row, reverse=True)[:k] for row in z.tolist()]
    assert torch.equal(z.gather(-1, tokens), values)
    assert all(len(set(row)) == min(k, size) for row in tokens.tolist())


def test_topk_without_equal_ones_names_torchs_tokens():
    z = torch.stack([torch.randperm(30 * BLOCK + 5).float() for _ in range(5)])
    assert torch.equal(topk(z, 12)[1], z.topk(12).indices)


def test_one_block_may_hold_them_all():
    z = torch.zeros(2, 50 * BLOCK)
    z[:, 7 * BLOCK : 7 * BLOCK + 20] = torch.arange(20, 0, -1).float()
    assert topk(z, 10)[1].tolist() == [list(range(7 * BLOCK, 7 * BLOCK + 10))] * 2


def test_minus_infinity_is_a_logit_like_others():
    z = torch.full((1, 3 * BLOCK), -torch.inf)
    z[0, BLOCK + 4] = -1.0
    assert argmax(z).tolist() == [BLOCK + 4]
    values, tokens = topk(z, 3)
    assert (values[0, 0].item(), tokens[0, 0].item()) == (-1.0, BLOCK + 4)
    assert values[0, 1:].tolist() == [-torch.inf] * 2
