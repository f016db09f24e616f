"""The measures of given h and z, as a step takes them."""

import numpy as np
import torch
from prunetui.engine.dots import dots
from prunetui.engine.drift import Distributions, measure
from prunetui.engine.vocabulary import survey


def distributions(z: torch.Tensor, temperature: float) -> Distributions:
    """Of z, [lanes, vocabulary]."""
    found = survey(z, 2, temperature)
    largest = found.highest[:, 0].double().numpy()
    with np.errstate(all="ignore"):
        return Distributions(found.sums.numpy(), largest, z.shape[-1], temperature)


def measured(h: torch.Tensor, z: torch.Tensor, temperature: float) -> dict[str, np.ndarray]:
    """By name, [variants] each; h: [lanes, hidden]."""
    with np.errstate(all="ignore"):
        return measure(dots(h[None])[:, 0].numpy(), distributions(z, temperature))
