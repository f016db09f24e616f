"""How the modules of a model lie on devices: accelerate's device maps."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.accelerate import accelerate_dispatch

DeviceMap = Mapping[str, Any]
"""Devices by the names of modules ("" is all): a device, its name, the index of a GPU, or disk."""


def device_map_of(model: PreTrainedModel) -> DeviceMap:
    """The devices that a model was spread over, or the one that it is on."""
    return getattr(model, "hf_device_map", None) or {"": model.device}


def device_of(name: str, device_map: DeviceMap) -> torch.device:
    """The device of a weight: that of the innermost module around it that the map names, or the
    first of the map."""
    parts = name.split(".")
    modules = (".".join(parts[:depth]) for depth in range(len(parts), -1, -1))
    first = next(iter(device_map.values()))
    return torch.device(next((device_map[m] for m in modules if m in device_map), first))


def install_device_hooks(model: PreTrainedModel, device_map: DeviceMap) -> None:
    """Install the hooks that move hidden states to the devices that the map gives the weights."""
    if len({*device_map.values()}) > 1:
        accelerate_dispatch(model, None, {**device_map}, None, None, False)


def describe_device_map(name: str, device_map: DeviceMap) -> str:
    """A sentence on the layers and the other modules of each device; empty if there is one."""
    modules: dict[str, list[str]] = {}
    for module, device in device_map.items():
        place = f"cuda:{device}" if isinstance(device, int) else str(device)
        modules.setdefault(place, []).append(module)
    if len(modules) < 2:
        return ""
    stacks = {stack for module in device_map if (stack := _index_in_stack(module)[0])}
    places = [f"{_listed(modules[place], len(stacks))} on {place}" for place in modules]
    return f"{name} is spread over {len(modules)} devices: {'; '.join(places)}."


def _listed(modules: list[str], stacks: int) -> str:
    """Text of modules, with runs of layers: "layers 0 to 15, embed_tokens"."""
    layers: dict[str, list[int]] = {}
    others = []
    for module in modules:
        stack, index = _index_in_stack(module)
        if stack:
            layers.setdefault(stack if stacks > 1 else "layers", []).append(index)
        else:
            parts = module.split(".")
            others.append(module if any(map(str.isdigit, parts)) else parts[-1])
    return ", ".join([*(f"{stack} {_runs(indices)}" for stack, indices in layers.items()), *others])


def _index_in_stack(module: str) -> tuple[str, int]:
    """The name of the stack of layers that a module is one of, and its index; "" for others."""
    stack, _, index = module.rpartition(".")
    if not index.isdecimal() or any(map(str.isdigit, stack.split("."))):
        return "", 0
    return stack, int(index)


def _runs(indices: list[int]) -> str:
    """Text of the runs in distinct numbers: "0 to 2, 5"."""
    runs = groupby(enumerate(sorted(indices)), lambda pair: pair[1] - pair[0])
    bounds = [[index for _, index in run] for _, run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in bounds)
