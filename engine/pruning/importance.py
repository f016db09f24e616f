"""How little each sublayer changes the residual stream (He et al. 2024, LLM-Drop)."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..anatomy import Anatomy
from ..streams import StreamHooks

Similarity = dict[str, list[float]]
"""Per kind, "attn" and "mlp": each layer's mean cosine similarity, in -1..1, of the residual
stream before and after that sublayer. The higher, the less the sublayer matters."""


@torch.inference_mode()
def sublayer_similarity(
    model: PreTrainedModel,
    anatomy: Anatomy,
    windows: list[Tensor],
    progress: Callable[[float], None],
) -> Similarity:
    """Mean over every token of the windows, int64 [positions] each.

    Where attention and MLP run in parallel, the attention is counted as the first of the two.
    """
    sums = torch.zeros(len(anatomy.layers), 2, dtype=torch.float64)
    before = torch.empty(0)

    def keep(point: int, stream: Tensor) -> None:
        nonlocal before
        layer, place = divmod(point, 3)
        if place:
            cosines = torch.cosine_similarity(before, stream.float(), dim=-1, eps=0.0)
            sums[layer, place - 1] += cosines.sum(dtype=torch.float64).cpu()
        before = stream.float()

    hooks = StreamHooks(anatomy, keep)
    try:
        for number, window in enumerate(windows):
            model(input_ids=window[None].to(model.device), use_cache=False, logits_to_keep=1)
            progress((number + 1) / len(windows))
    finally:
        hooks.remove()
    means = sums / sum(len(window) for window in windows)
    return {"attn": means[:, 0].tolist(), "mlp": means[:, 1].tolist()}


def least_important(similarity: list[float], count: int, dropped: set[int]) -> list[int]:
    """The `count` layers not dropped yet that change the stream least, most similar first."""
    open_layers = [layer for layer in range(len(similarity)) if layer not in dropped]
    return sorted(open_layers, key=lambda layer: -similarity[layer])[:count]
