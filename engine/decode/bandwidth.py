"""The physical limit of decoding: a step reads every weight and every cache once."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from ..cpu.backend import backend_for

BLOCK = 256 << 20
"""Bytes: more than any cache between the memory and the arithmetic holds."""
ROUNDS = 5


def read_bandwidth(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes per second at which a large tensor of a model's dtype is read, the best of a few.

    By a sum, or by a product with one row where that is faster: a sum alone does not keep every
    processor's memory busy.
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
    """Bytes that one forward pass of each model reads, of a few rows.

    All its parameters but for an input embedding that is not the head too, of which a pass reads
    a few rows; all experts of a mixture are counted.
    """
    total = 0
    for model in models:
        backend = backend_for(model.device, model.dtype)
        read: dict[int, int] = {}
        for module in model.modules():
            if not isinstance(module, nn.Embedding):
                for name, parameter in module.named_parameters(recurse=False):
                    stored = (
                        backend.stored_weight(module) if backend and name == "weight" else parameter
                    )
                    read[id(parameter)] = stored.nbytes
        total += sum(read.values())
    return total


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of keys and values that a forward pass reads."""
    held = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))
