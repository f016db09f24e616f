"""Drift of the variants in outputs outside of a session, at T = 1."""

import torch
from torch import Tensor

from ..model.outputs import Outputs
from ..trace import records
from .step_numbers import StepNumbers, step_numbers
from .step_reduction import StepReduction, StepRequest

GREEDY = records.Sampling(
    temperature=0, top_k=0, top_p=1, seed=0, max_new_tokens=0, ignore_eos=False
)


def measure_drift(outputs: Outputs) -> list[records.Drift]:
    """Drift per variant; row 0 of the outputs is the baseline, each other one a variant.

    `dp` and `logq` are of the baseline's most probable token.
    """
    return [records.Drift(**drift) for drift in _numbers(outputs).drift]


def measure_kl(z: Tensor) -> list[float | None]:
    """KL(p ‖ q) in nats per variant from logits [lanes, vocabulary], p of row 0; None where one of
    the two has no softmax."""
    # Of h nothing is taken, and of the streams the point before the first sublayer is not measured.
    h = z.new_zeros(len(z), 1)
    return [drift["kl"] for drift in _numbers(Outputs(h, z, h[None])).drift]


def _numbers(outputs: Outputs) -> StepNumbers:
    z = outputs.z
    request = StepRequest(len(z), 1, torch.empty(0, dtype=torch.int64))
    reduced = StepReduction(GREEDY, request, z.device)(outputs)
    return step_numbers(reduced.fetch()(), request, z.shape[-1], GREEDY.measured_temperature)
