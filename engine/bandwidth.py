"""The physical limit of decoding: a step reads every weight and every cache once."""

import time

import torch
from torch import Tensor, nn
from transformers import DynamicCache

BLOCK = 256 << 20
"""Bytes: more than any cache between the memory and the arithmetic holds."""
ROUNDS = 5


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second at which a sum reads a large tensor, the best of a few."""
    block = torch.ones(BLOCK // 4, device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        block.sum().item()
        best = min(best, time.perf_counter() - began)
    return BLOCK / best


def weight_bytes(models: list[nn.Module]) -> int:
    """Bytes that one forward pass of each model reads.

    All its parameters but for an input embedding that is not the head too, of which a pass reads
    a few rows; all experts of a mixture are counted.
    """
    total = 0
    for model in models:
        looked_up = {
            id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
        }
        multiplied = {
            id(parameter)
            for module in model.modules()
            if not isinstance(module, nn.Embedding)
            for parameter in module.parameters(recurse=False)
        }
        total += sum(
            parameter.nbytes
            for parameter in model.parameters()
            if id(parameter) not in looked_up - multiplied
        )
    return total


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of keys and values that a forward pass reads."""
    held = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))
