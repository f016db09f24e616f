"""The physical limit of decoding: a step reads every weight and every cache once."""

import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from ..cpu.backend import backend_for

BLOCK = 256 << 20
"""Bytes to read; more than any processor cache holds."""
ROUNDS = 5


def read_bandwidth(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes per second at which a large tensor of a dtype is read; the best of a few rounds.

    Read by a sum, or by a product with one row where that is faster: a sum alone does not keep
    every processor's memory busy.
    """
    block = torch.ones(BLOCK // dtype.itemsize, dtype=dtype, device=device)
    ways: list[Callable[[], float]] = [lambda: block.view(torch.float32).sum().item()]
    if backend := backend_for(device, dtype):
        ways.append(backend.read_probe(block))
    best = float("inf")
    for way in ways * ROUNDS:
        began = time.perf_counter()
        way()
        best = min(best, time.perf_counter() - began)
    return BLOCK / best


def weight_bytes(models: list[PreTrainedModel]) -> int:
    """Bytes of weights that one forward pass of each model reads.

    Every parameter counts, except an input embedding that is not also the head: a pass reads a few
    of its rows. All experts of a mixture count.
    """
    total = 0
    for model in models:
        backend = backend_for(model.device, model.dtype)
        sizes: dict[int, int] = {}
        for module in model.modules():
            if not isinstance(module, nn.Embedding):
                for name, parameter in module.named_parameters(recurse=False):
                    stored = (
                        backend.stored_weight(module) if backend and name == "weight" else parameter
                    )
                    sizes[id(parameter)] = stored.nbytes
        total += sum(sizes.values())
    return total
