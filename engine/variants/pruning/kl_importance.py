"""Importance by KL: how far the next-token distribution moves where a sublayer is dropped too."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...model.dropped import Dropped
from ...model.kl_divergence import kl_divergence, log_softmax
from ...model.rows import Row, RowReader
from ...model.weight_group import WeightGroup


def measure_kl(
    baseline: WeightGroup,
    group: WeightGroup,
    drops: Sequence[Dropped],
    windows: Sequence[Tensor],
    progress: Callable[[float], None],
) -> list[float | None]:
    """KL(p ‖ q) in nats for each of `drops`, the mean over all positions of the windows, int64
    [positions] each: p is the baseline's distribution, q that of `group` with these sublayers
    dropped. None where it is not finite. Raises `UserError` if there is no memory for one row.
    """
    reader = RowReader(group, None)
    baseline_reader = reader if group is baseline else RowReader(baseline, None)
    rows = [Row(dropped) for dropped in drops]
    sums = [0.0] * len(rows)
    for number, window in enumerate(windows):
        progress(number / len(windows))
        needed = torch.arange(len(window))

        def report(done: float, number: int = number) -> None:
            progress((number + done) / len(windows))

        (x,) = baseline_reader.read_all([Row()], window, needed, lambda _: None)
        log_p = log_softmax(x)
        for index, z in enumerate(reader.read_all(rows, window, needed, report)):
            sums[index] += kl_divergence(log_p, z).sum().item()
    tokens = sum(map(len, windows))
    return [total / tokens if math.isfinite(total) else None for total in sums]
