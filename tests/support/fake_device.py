"""A pretended GPU without memory: models of any size take steps on tensors that have no numbers.

Tensors on it are torch's fake ones, which know shape, dtype, strides and storage; those on the CPU
are real. Whatever reads a number of the device on the host raises `DataDependentOutputException` or
`DynamicOutputShapeException`: `item`, `tolist`, `bool()`, `equal`, `nonzero`, `unique`, indexing by
a mask. A copy on the host has no numbers either.
"""

# Much of torch has no public name.
# ruff: noqa: SLF001

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.weight_group import WeightGroup
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from .transfers import MASKS, VALUE_READING, is_composite, leaves_in

DEVICE = "pretended"

aten = torch.ops.aten

_set_up: Any = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
_hook: Any = getattr(backend_registration, "_DummyPrivateUse1Hook", object)
_module: Any = getattr(backend_registration, "_DummyBackendModule", object)

needs_fake_device = pytest.mark.skipif(
    _set_up is None, reason="this torch takes no device from Python"
)


class _Hook(_hook):
    def is_available(self) -> bool:
        return False


class _Module(_module):
    """What `torch.accelerator` asks. The device stays registered until the process ends, so that
    other tests would find an accelerator if it said that it is there."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Yield a device where tensors can be made and moved to while inside, in inference mode."""
    if torch._C._get_privateuse1_backend_name() != DEVICE:
        _set_up(DEVICE, _Module(), _Hook())
    make_generator = torch.Generator

    def generator(device: Any = "cpu") -> torch.Generator:
        """Stand in for the generator of the device, which Python cannot give it."""
        return make_generator("cpu" if torch.device(device).type == DEVICE else device)

    lifted = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(patch("torch.Generator", generator))
        # `torch.tensor` then makes a tensor on the CPU and moves it, which modes can see.
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(_FakeDevice())
        yield torch.device(DEVICE, 0)


class _FakeDevice(TorchDispatchMode):
    """Mode that has fake tensors for whatever is on the device."""

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(map(_is_fake, leaves_in((args, kwargs)))):
            return func(*args, **kwargs)
        if make := made_of(func):
            with self:
                return make(*args, **kwargs)
        if func in VALUE_READING and is_on_device(args[-1]):
            raise DataDependentOutputException(func)
        if func.overloadpacket is aten.index_put_ and args[2].ndim and _has_mask(args[1]):
            raise DynamicOutputShapeException(func)
        with self._fake:
            return func(*args, **kwargs)


def make_fake_group(config: PretrainedConfig, dtype: torch.dtype = torch.bfloat16) -> WeightGroup:
    """A model of the config on the fake device, inside `fake_device`.

    Where its sublayers are is learnt from a small model with as many layers, whose numbers are
    real.
    """
    with torch.device(DEVICE), no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval().requires_grad_(False).tie_weights()
    small = AutoModelForCausalLM.from_config(type(config)(**(config.to_dict() | _SMALL))).eval()
    modules = dict(model.named_modules())
    same = {id(module): modules[name] for name, module in small.named_modules()}
    return WeightGroup(model, copy.deepcopy(find_anatomy(small), same))


_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "vocab_size": 32,
    "pad_token_id": None,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def is_on_device(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == DEVICE


def _is_fake(value: object) -> bool:
    return isinstance(value, FakeTensor) or (
        isinstance(value, torch.device) and value.type == DEVICE
    )


def _has_mask(indices: list[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in MASKS for index in indices)


def _rms_norm(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.new_empty(x.shape)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *_: Any,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Lay out the output as flash attention does, with a mask as memory-efficient attention, after
    the same work on the mask. Neither takes a mask with keys that heads share."""
    if (mask := attn_mask) is None:
        return torch.empty_like(query)
    if enable_gqa:
        attend = aten._scaled_dot_product_attention_math
        return attend(query, key, value, mask, scale=scale, enable_gqa=True)[0]
    if mask.dtype == torch.bool:
        mask = torch.where(mask.logical_not(), -torch.inf, 0.0)
    if any(stride % 16 for stride in mask.stride()[:-1]) or mask.stride(-1) != 1:
        torch.nn.functional.pad(mask, (0, 1))
    rows, heads, queries, _width = query.shape
    return query.new_empty(rows, queries, heads, value.shape[-1]).transpose(1, 2)


FUSED: dict[Any, Callable[..., Tensor]] = {
    aten.rms_norm.default: _rms_norm,
    aten.scaled_dot_product_attention.default: _attend,
}
"""Operators that are a kernel on CUDA and many on other devices, with what returns their output."""


@functools.cache
def made_of(func: Any) -> Callable[..., Any] | None:
    """What an operator that is no kernel of its own does; None for others."""
    if func in FUSED:
        return FUSED[func]
    return func.decompose if is_composite(func) else None
