"""Importance by KL: how far the next-token distribution moves where a sublayer is dropped too."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...model.dropped import Dropped
from ...model.rows import Report, Row, read_rows
from ...model.weight_group import WeightGroup
from .kl_divergence import kl_divergence


@torch.inference_mode()
def measure_kl(
    baseline: WeightGroup,
    group: WeightGroup,
    drops: Sequence[Dropped],
    windows: Sequence[Tensor],
    report: Report,
) -> list[float | None]:
    """KL(p ‖ q) in nats for each of `drops`, the mean over all positions of the windows, int64
    [positions] each: p is the baseline's distribution, q that of `group` with these sublayers
    dropped. None where it is not finite.
    """
    sums = [0.0] * len(drops)
    rows = [Row(dropped) for dropped in drops]
    for number, window in enumerate(windows):

        def report_part(done: float, number: int = number) -> None:
            report((number + done) / len(windows))

        needed = torch.arange(len(window))
        report_part(0.0)
        (x,) = read_rows(baseline, None, [Row()], window, needed, lambda _: None)
        log_p = torch.log_softmax(x.double(), dim=-1)
        for index, z in enumerate(read_rows(group, None, rows, window, needed, report_part)):
            sums[index] += kl_divergence(log_p, z).sum().item()
    tokens = sum(map(len, windows))
    return [total / tokens if math.isfinite(total) else None for total in sums]
