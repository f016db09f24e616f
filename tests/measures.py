"""The measures of given h and z, as a step takes them."""

import numpy as np
import torch
from prunetui.engine.drift import Distributions, measure
from prunetui.engine.lockstep import Outputs
from prunetui.engine.survey import Survey, survey
from torch import Tensor


def surveyed(z: Tensor, k: int, temperature: float, h: Tensor | None = None) -> Survey:
    """Of z, [lanes, vocabulary], and h, [lanes, hidden], if it matters."""
    h = torch.ones(len(z), 4, dtype=z.dtype, device=z.device) if h is None else h
    return survey(Outputs(h, z, h[None]), k, temperature)


def distributions(z: Tensor, temperature: float) -> Distributions:
    """Of z, [lanes, vocabulary]."""
    return _distributions(surveyed(z, 2, temperature), z, temperature)


def measured(h: Tensor, z: Tensor, temperature: float) -> dict[str, np.ndarray]:
    """By name, [variants] each; h: [lanes, hidden]."""
    found = surveyed(z, 2, temperature, h)
    with np.errstate(all="ignore"):
        return measure(found.h_dots.numpy(), _distributions(found, z, temperature))


def _distributions(found: Survey, z: Tensor, temperature: float) -> Distributions:
    largest = found.highest[:, 0].double().numpy()
    with np.errstate(all="ignore"):
        return Distributions(found.sums.numpy(), largest, z.shape[-1], temperature)
