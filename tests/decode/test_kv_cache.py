"""Shared prefixes of the rows of a cache."""

import pytest
import torch
from prunetui.engine.decode.kv_cache import GrowingLayer, can_crop, new_cache, read
from torch import Tensor

from ..support.families import make_family
from ..support.steps import present

LENGTH, HEADS, WIDTH = 37, 2, 8


def common(layer: GrowingLayer) -> list[tuple[int, int]]:
    """For each row, an earlier row and the length of their shared prefix, equal in all heads."""
    *_, held, length = layer.extend(torch.empty(len(present(layer.keys))), HEADS, WIDTH)
    assert length == layer.get_seq_length()
    assert torch.equal(held[:, 1:], held[:, 1:2].expand(-1, HEADS))
    return [(other, positions) for other, positions, *_ in held.tolist()]


def rows_like(*like: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Keys and values of rows that share a prefix with an earlier row."""
    torch.manual_seed(0)
    keys, values = torch.randn(2, len(like), HEADS, LENGTH, WIDTH)
    for row, (other, positions) in enumerate(like):
        for held in (keys, values):
            held[row, :, :positions] = held[other, :, :positions]
    return keys, values


@pytest.mark.parametrize("positions", [0, 1, 2, 3, 15, 16, LENGTH - 1, LENGTH])
def test_two_rows(positions: int) -> None:
    layer = GrowingLayer()
    layer.update(*rows_like((0, 0), (0, positions)))
    assert common(layer) == [(0, 0), (0, positions)]


def test_the_row_that_most_is_common_with() -> None:
    layer = GrowingLayer()
    layer.update(*rows_like((0, 0), (0, 20), (1, LENGTH), (1, 30), (0, 0)))
    assert common(layer) == [(0, 0), (0, 20), (1, LENGTH), (1, 30), (0, 0)]


@pytest.mark.parametrize("which", [0, 1])
def test_both_keys_and_values_must_be_the_same(which: int) -> None:
    held = rows_like((0, 0), (0, LENGTH))
    held[which][1, 1, 11, 3] += 1
    layer = GrowingLayer()
    layer.update(*held)
    assert common(layer) == [(0, 0), (0, 11)]


def test_positions_that_are_read_by_others_are_compared_again() -> None:
    layer = GrowingLayer()
    layer.update(*rows_like((0, 0), (0, LENGTH)))
    assert common(layer) == [(0, 0), (0, LENGTH)]
    layer.crop(-5)
    layer.update(*rows_like((0, 0), (0, 7)))
    assert common(layer) == [(0, 0), (0, LENGTH - 4 + 7)]


def test_nothing_is_common_where_nothing_is_held() -> None:
    layer = GrowingLayer()
    keys, values, held, length = layer.extend(torch.empty(3), HEADS, WIDTH)
    assert held.tolist() == [[0] * 3] * 3
    assert length == 1
    assert keys.shape == values.shape == (3, HEADS, 256, WIDTH)


@pytest.mark.parametrize("family", ["deepseek_v4", "zaya", "inkling_text"])
def test_what_keeps_more_than_a_window_does_not_go_back(family: str) -> None:
    model = make_family(family, sliding_window=64)
    cache = new_cache(model)
    with torch.inference_mode():
        read(model, torch.arange(1, 13)[None], cache, 0)
    assert not can_crop([cache])
