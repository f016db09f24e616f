"""The device a model runs on, and the placement of its modules on devices."""

from collections.abc import Mapping

import torch

from ..errors import OptionError
from ..options import Options

Placement = str | Mapping[str, object] | None
"""accelerate's `device_map`: modules by name ("" is all) on devices, or auto; None is the CPU."""


def find_device(name: str) -> torch.device:
    """The named device, or the best one for `auto`. Raises `UserError` if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Nothing can be read back from a meta tensor.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(
            f"there is no device {name!r} here; leave --device out, or try cpu"
        ) from error
    return device


def placement(options: Options, device: torch.device) -> Placement:
    """All modules on one device, unless the options spread them."""
    return options.device_map or (None if device.type == "cpu" else {"": device})
