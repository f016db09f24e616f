"""Whether two models compute alike but for the values of their parameters."""

import re

import torch
from torch import nn
from transformers import PreTrainedModel

_IGNORED = re.compile("training|.*drop|padding_idx|gradient_checkpointing|(original_)?max_")
"""Names of numbers on which no output depends, or which grow with the texts read."""


def find_difference(first: PreTrainedModel, second: PreTrainedModel) -> str | None:
    """Clause on the first difference of the second model's modules: their names and classes, names
    and shapes of parameters, numbers that they compute with, and buffers; None if there is none.
    """
    modules, others = dict(first.named_modules()), dict(second.named_modules())
    for name in [*modules, *others]:
        if name not in modules or name not in others:
            return f"{name} is in only one of them"
    for name, module in modules.items():
        if difference := _difference(name, module, others[name]):
            return difference
    return None


def _difference(name: str, module: nn.Module, other: nn.Module) -> str | None:
    classes, other_classes = _classes(module), _classes(other)
    # What prepares a model to decode makes subclasses of its linear layers.
    if classes[0] not in other_classes and other_classes[0] not in classes:
        return f"{name} is a {other_classes[0]} and not a {classes[0]}"
    if isinstance(module, nn.Dropout):
        return None
    parameters = dict(module.named_parameters(recurse=False))
    other_parameters = dict(other.named_parameters(recurse=False))
    for key in parameters | other_parameters:
        expected, own = parameters.get(key), other_parameters.get(key)
        if own is None or expected is None:
            return f"{name} has {'no' if own is None else 'a'} {key}"
        # Weights that are stored packed leave an empty parameter.
        if own.shape != expected.shape and own.numel() and expected.numel():
            return f"{key} of {name} is {(*own.shape,)} and not {(*expected.shape,)}"
    numbers, other_numbers = _numbers(module), _numbers(other)
    for key in numbers | other_numbers:
        if (number := other_numbers.get(key)) != numbers.get(key):
            return f"{key} of {name} is {number} and not {numbers.get(key)}"
    buffers = dict(other.named_buffers(recurse=False))
    for key, buffer in module.named_buffers(recurse=False):
        same = buffers.get(key)
        if same is None or same.shape != buffer.shape or not torch.equal(same, buffer):
            return f"{key} of {name} has other numbers"
    return None


def _classes(module: nn.Module) -> list[str]:
    return [each.__qualname__ for each in type(module).__mro__ if each is not nn.Module]


def _numbers(module: nn.Module) -> dict[str, float]:
    """Numbers and flags that are attributes of the module itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float) and not _IGNORED.match(name)
    }
