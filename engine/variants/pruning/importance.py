"""Importance: the change that each sublayer and layer makes to the residual stream.

LLM-Drop (He et al. 2024) drops the sublayers, ShortGPT (Men et al. 2024) the layers, and "The
unreasonable ineffectiveness of the deeper layers" (Gromov et al. 2024) the run of layers whose
input and output are most alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import OptionError
from ...model.anatomy import Anatomy
from ...model.residual_stream import StreamHooks
from .ranking import Similarity


@torch.inference_mode()
def measure_similarity(
    model: PreTrainedModel,
    anatomy: Anatomy,
    windows: list[Tensor],
    progress: Callable[[float], None],
) -> Similarity:
    """Mean similarities over all tokens of the windows, int64 [positions] each.

    Where attention and MLP run in parallel, the attention is counted as the first of the two.
    Raises `UserError` where a stream is not known or has no direction.
    """
    if not anatomy.has_known_stream:
        raise OptionError(
            f"what each sublayer of a {model.config.model_type} model adds is not known, so they "
            "cannot be ranked; name the layers to drop, as in drop:attn=[1,2]"
        )
    depth = len(anatomy.layers)
    sublayers = torch.zeros(depth, 2, dtype=torch.float64)
    runs = torch.zeros(depth + 1, depth + 1, dtype=torch.float64)
    before, windows_read = torch.empty(0), 0
    bounds: list[Tensor] = []

    def compare(point: int, stream: Tensor) -> None:
        nonlocal before
        # A model may be spread over several devices.
        now = stream.float().to(model.device)
        if point:
            cosines = torch.cosine_similarity(before, now, dim=-1, eps=0.0)
            sublayers.view(-1)[point - 1] += cosines.sum(dtype=torch.float64).cpu()
        before = now
        if point % 2 == 0:
            bounds.append(now[0] / now[0].norm(dim=-1, keepdim=True))
        progress((windows_read + point / (2 * depth)) / len(windows))

    with StreamHooks(anatomy, compare):
        for window in windows:
            bounds.clear()
            model(input_ids=window[None].to(model.device), use_cache=False, logits_to_keep=1)
            points = torch.stack([bound.flatten() for bound in bounds])
            runs += (points @ points.T).double().cpu()
            windows_read += 1
    tokens = sum(len(window) for window in windows)
    sublayers /= tokens
    runs /= tokens
    if not (sublayers.isfinite().all() and runs.isfinite().all()):
        raise OptionError(
            "nothing can be ranked: on the calibration text the residual stream is somewhere 0 or "
            "no number, and has no direction; use another text (--calibration)"
        )
    return Similarity(
        attention=sublayers[:, 0].tolist(),
        mlp=sublayers[:, 1].tolist(),
        runs=[[runs[i, i + n].item() for i in range(depth + 1 - n)] for n in range(1, depth + 1)],
    )
