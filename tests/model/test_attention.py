"""Attention of one position with grouped queries: the stock numbers without its copies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.decode.kv_cache import new_cache
from prunetui.engine.model.attention import GroupedAttention, attend_by_kernel, chosen_attention
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from ..support.models import make_model, save_model_directory

ROWS, POSITIONS, HEADS, WIDTH = 3, 13, 4, 8
KEYS_OF_ALL_HEADS = ROWS * HEADS * POSITIONS * WIDTH
MASK_OF_ALL_HEADS = ROWS * HEADS * POSITIONS


class NewTensors(TorchDispatchMode):
    """Sizes of the tensors that calls make, without views and what they write to.

    In inference mode it would not see inside composite calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and not any(map(aliased(made), inputs)):
                self.sizes.add(made.numel())
        return out


def aliased(x: Tensor) -> Callable[[Tensor], bool]:
    return lambda y: x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def step(model: PreTrainedModel, *, masked: bool) -> tuple[Tensor, set[int]]:
    """Logits of one position after a prompt, and the sizes of the tensors that it made."""
    tokens = torch.arange(ROWS * POSITIONS).view(ROWS, -1) + 7
    mask = torch.ones_like(tokens)
    mask[1, :2] = mask[2, 5] = 0
    cache = new_cache(model)

    def read(begin: int, end: int) -> Tensor:
        return model(
            tokens[:, begin:end],
            attention_mask=mask[:, :end] if masked else None,
            past_key_values=cache,
        ).logits[:, -1]

    read(0, POSITIONS - 1)
    with NewTensors() as made:
        logits = read(POSITIONS - 1, POSITIONS)
    return logits, made.sizes


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3", "mixtral", "gpt_neox"])
def test_a_step_copies_neither_keys_nor_mask_for_each_head(family: str, masked: bool) -> None:
    model = make_model(family)
    expected, _ = step(model, masked=masked)
    with GroupedAttention([model]):
        got, made = step(model, masked=masked)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert made.isdisjoint({KEYS_OF_ALL_HEADS, MASK_OF_ALL_HEADS})


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mixtral"])
def test_keys_are_not_repeated_where_no_kernel_takes_groups(family: str, masked: bool) -> None:
    """The stock attention repeats them there, if nothing is masked."""
    model = make_model(family)
    with sdpa_kernel(SDPBackend.MATH):
        expected, stock_made = step(model, masked=masked)
        with GroupedAttention([model]):
            got, made = step(model, masked=masked)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert (KEYS_OF_ALL_HEADS in stock_made) == (not masked)
    assert KEYS_OF_ALL_HEADS not in made


def test_lanes_without_the_cpu_path_attend_in_groups(tmp_path: Path) -> None:
    """In a dtype that the path has no kernels for, as on another device."""
    model = str(save_model_directory(tmp_path / "tiny"))
    options = Options(model=model, variants=("drop:attn=[1]", "magnitude:0.5"), dtype="float16")
    session = open_session(options, None, lambda *_: None)
    models = {lane.group.model for lane in session.lanes.models}
    modules = [module for model in models for module in model.modules()]
    assert len(models) == 2
    assert {chosen_attention(module) for module in modules} == {attend_by_kernel}
    session.lanes.remove()
    assert {chosen_attention(module) for module in modules} == {None}
    session.close()
