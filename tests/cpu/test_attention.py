"""Attention of one position over a cache: equal to the formula."""

import pytest
import torch
from prunetui.engine.cpu import attention as module
from prunetui.engine.cpu.attention import (
    ATTENTIONS,
    KERNEL,
    PRODUCTS,
    faster_attention,
)
from prunetui.engine.model.attention import GroupedAttention, choose_attention, chosen_attention
from torch import nn
from transformers import AttentionInterface

from ..support.models import FAMILIES, make_model

ROWS, HEADS, KEY_HEADS, CACHED, WIDTH = 3, 6, 2, 11, 8


def _inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    shapes = ((HEADS, 1), (KEY_HEADS, CACHED), (KEY_HEADS, CACHED))
    q, k, v = (torch.randn(ROWS, heads, length, WIDTH) for heads, length in shapes)
    return q.to(dtype), k.to(dtype), v.to(dtype)


EVERY_ONE = pytest.mark.parametrize("name", ATTENTIONS)


@EVERY_ONE
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_attention_is_softmax_of_scaled_products(
    dtype: torch.dtype, error: float, mask: str | None, name: str
) -> None:
    q, k, v = _inputs(dtype)
    given = None
    if mask == "bool":
        given = torch.rand(ROWS, 1, 1, CACHED) < 0.7
    elif mask == "float":
        given = torch.randn(ROWS, HEADS, 1, CACHED)
    layer = nn.Module()
    choose_attention(layer, ATTENTIONS[name])
    got, _ = AttentionInterface()["sdpa"](layer, q, k, v, given, scaling=0.3)
    for row in range(ROWS):
        for head in range(HEADS):
            shared = head // (HEADS // KEY_HEADS)
            scores = k[row, shared].double() @ q[row, head, 0].double() * 0.3
            if given is not None and given.dtype == torch.bool:
                scores[~given[row, 0, 0]] = float("-inf")
            elif given is not None:
                scores += given[row, head, 0].double()
            expected = scores.softmax(-1) @ v[row, shared].double()
            torch.testing.assert_close(got[row, 0, head].double(), expected, atol=error, rtol=error)


@EVERY_ONE
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_decodes_the_same_and_is_left_as_it_was(family: str, name: str) -> None:
    model = make_model(family)
    stock = model.config._attn_implementation
    tokens = torch.arange(1, 13)[None].repeat(2, 1)

    def last() -> torch.Tensor:
        read = model(tokens[:, :-1], use_cache=True)
        return model(tokens[:, -1:], past_key_values=read.past_key_values).logits

    with torch.inference_mode():
        expected = last()
        fast = GroupedAttention([model], ATTENTIONS[name])
        fast.install()
        got = last()
        fast.remove()
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-4)
    assert model.config._attn_implementation == stock
    assert not any(map(chosen_attention, model.modules()))


@pytest.mark.parametrize(("faster", "name"), [(True, PRODUCTS), (False, KERNEL)])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_taken_where_they_are_plainly_faster(
    family: str, faster: bool, name: str, monkeypatch
) -> None:
    model = make_model(family)
    taken = model.config._attn_implementation == "sdpa"

    def timed(products, kernel):
        assert bool(products) == taken
        for one, other in zip(products, kernel, strict=True):
            torch.testing.assert_close(one(), other())
        return faster

    monkeypatch.setattr(module, "plainly_faster", timed)
    assert faster_attention({model: 3}) == name
