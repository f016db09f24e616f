"""The highest logits by blocks are those of the whole rows."""

import pytest
import torch
from prunetui.engine.measure import top_k
from prunetui.engine.measure.step_reduction import StepRequest
from prunetui.engine.measure.top_k import CPU_BLOCKS, GPU_BLOCKS, argmax, topk
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.trace.records import Sampling
from torch import Tensor

from ..support.measures import numbers_and_tokens

LARGE = CPU_BLOCKS[0]
SIZES = (1, 7, 31, 33, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE, 40 * LARGE + 17)


@pytest.fixture(autouse=True, params=[CPU_BLOCKS, GPU_BLOCKS])
def blocks(request, monkeypatch) -> None:
    monkeypatch.setattr(top_k, "CPU_BLOCKS", request.param)


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
def test_topk_ranks_equal_ones_by_token(size: int, dtype: torch.dtype, k: int):
    z = logits(size, dtype)
    values, tokens = topk(z, k)
    ranked = [sorted(range(size), key=lambda t, row=row: (-row[t], t))[:k] for row in z.tolist()]
    assert tokens.tolist() == ranked
    assert torch.equal(z.gather(-1, tokens), values)


def test_one_block_may_hold_them_all():
    z = torch.zeros(2, 50 * LARGE)
    z[:, 7 * LARGE : 7 * LARGE + 20] = torch.arange(20, 0, -1).float()
    assert topk(z, 10)[1].tolist() == [list(range(7 * LARGE, 7 * LARGE + 10))] * 2


def test_minus_infinity_is_a_logit_like_others():
    z = torch.full((1, 3 * LARGE), -torch.inf)
    z[0, LARGE + 4] = -1.0
    assert argmax(z).tolist() == [LARGE + 4]
    values, tokens = topk(z, 3)
    assert tokens.tolist() == [[LARGE + 4, 0, 1]]
    assert values.tolist() == [[-1.0, -torch.inf, -torch.inf]]


def test_the_greedy_token_is_the_first_candidate_and_the_same_top_token():
    """In bfloat16 the two highest logits are often equal."""
    z = torch.zeros(3, 4 * LARGE, dtype=torch.bfloat16)
    z[:, [5, 700, 1900]] = 8.0
    z[2, 5] = 7.0
    outputs = Outputs(torch.ones(3, 8), z, torch.ones(5, 3, 8))
    greedy = Sampling(
        temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=1, ignore_eos=False
    )
    request = StepRequest(lanes=3, candidates=3, answers=torch.empty(0, dtype=torch.int64))
    numbers, chosen = numbers_and_tokens(outputs, greedy, 0, request)
    assert chosen.tolist() == numbers.tokens == [5, 5, 700]
    assert numbers.top == [[5, 700, 1900], [5, 700, 1900], [700, 1900, 5]]
    assert [drift["top1"] for drift in numbers.drift] == [True, False]
    assert numbers.margins == [0.0, 0.0, 0.0]
