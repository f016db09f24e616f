"""The device a model runs on, and the placement of its modules on devices."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from ..errors import OptionError
from ..foreign import message
from ..options import Options
from ..out_of_memory import out_of_memory
from .device_memory import cards, free_on

log = logging.getLogger(__name__)

Placement = str | Mapping[str, object] | None
"""accelerate's `device_map`: modules by name ("" is all) on devices, or auto; None is the CPU."""

KERNEL_DRIVER = Path("/proc/driver/nvidia")
"""Where Linux shows NVIDIA's driver: there is a GPU, even if this process cannot use it."""


def find_device(name: str) -> torch.device:
    """The named device, or the best one for `auto`. Raises `UserError` if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count() > 0:
            there = " and ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
            raise OptionError(f"there is no {name} here, only {there}; name one of these")
        # Nothing can be read back from a meta tensor.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(_why_not(name, error)) from error
    return device


def _why_not(name: str, error: Exception) -> str:
    """A sentence: why the named device cannot be used."""
    if name.partition(":")[0] == "cuda":
        if why := why_no_gpu():
            return f"{name} cannot be used: {why}; leave --device out to run on the CPU"
        if torch.cuda.is_available():
            if out_of_memory(error):
                free = free_on(cards(range(torch.cuda.device_count())))
                return f"the memory of {name} is full{free}; name another, or free its memory"
            return f"{name} cannot be used ({message(error)}); leave --device out, or try cpu"
    return f"there is no device {name!r} here; leave --device out, or try cpu"


def why_no_gpu() -> str | None:
    """A clause: why the GPU of this machine cannot be used; None if it can, or there is none."""
    if torch.cuda.is_available():
        return None
    has_driver = KERNEL_DRIVER.exists()
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA" if has_driver else None
    try:
        torch.cuda.init()
    except Exception as error:
        text = message(error)
        log.warning("CUDA: %s", text)
    else:
        return None
    if re.search(r"no NVIDIA driver|No \w+ GPUs are available", text):
        if not has_driver:
            return None
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            return f"CUDA_VISIBLE_DEVICES is {hidden!r}, which shows none"
    # After the first sentence torch says where drivers are, but for a number of CUDA's own.
    number = re.search(r"Error \d+: .*", text)
    return (number.group() if number else text.partition(". ")[0]).rstrip(".")


def placement(options: Options, device: torch.device) -> Placement:
    """All modules on one device, unless the options spread them."""
    return options.device_map or (None if device.type == "cpu" else {"": device})


def gpu_indices(device: torch.device, placement: Placement) -> list[int]:
    """The GPUs that a model is loaded to."""
    if device.type != "cuda":
        return []
    visible = range(torch.cuda.device_count())
    if not isinstance(placement, Mapping):
        return [*visible]
    # A device is its index alone, cuda, or both.
    places = {str(place).removeprefix("cuda").lstrip(":") or "0" for place in placement.values()}
    return [index for index in visible if str(index) in places]


def devices_in_use(models: Iterable[nn.Module]) -> list[torch.device]:
    """The devices that hold weights of the models, each once."""
    return [*dict.fromkeys(weight.device for model in models for weight in model.parameters())]
