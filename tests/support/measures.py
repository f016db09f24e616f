"""Measures of given outputs, as a step computes them."""

import numpy as np
import torch
from prunetui.engine.measure.drift import MEASURES, Measures, measure
from prunetui.engine.measure.reductions import Reductions, reduce_logits
from prunetui.engine.measure.step_numbers import StepNumbers, step_numbers
from prunetui.engine.measure.step_reduction import StepReduction, StepRequest
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.trace.records import Sampling
from torch import Tensor


def reduced(z: Tensor, k: int, temperature: float, h: Tensor | None = None) -> Reductions:
    """Reductions of z, [lanes, vocabulary], and h, [lanes, hidden], which is ones if not given."""
    h = torch.ones(len(z), 4, dtype=z.dtype, device=z.device) if h is None else h
    return reduce_logits(Outputs(h, z, h[None]), k, temperature)


def measures(h: Tensor, z: Tensor, temperature: float) -> Measures:
    """Measures of h, [lanes, hidden], and z, [lanes, vocabulary].

    The measured tokens are the baseline's most probable one, then the whole vocabulary in order."""
    reductions = reduced(z, 2, temperature, h)
    logits = torch.cat([z[:, reductions.tokens[0, :1]], z], dim=1)
    return measure(
        reductions.sums.double().numpy(),
        reductions.highest.double().numpy(),
        logits.double().numpy(),
        reductions.h_dots.double().numpy(),
        reductions.stream_dots.double().numpy(),
        z.shape[-1],
        temperature,
    )


def measured(h: Tensor, z: Tensor, temperature: float) -> dict[str, np.ndarray]:
    """Drift measures by name, [variants] each."""
    return dict(zip(MEASURES, measures(h, z, temperature).drift.T, strict=True))


def numbers_and_tokens(
    outputs: Outputs, sampling: Sampling, step: int, request: StepRequest
) -> tuple[StepNumbers, Tensor]:
    """Numbers of a step, and the chosen tokens, int64 [lanes]."""
    reduction, vocabulary = StepReduction(sampling, request, outputs.z.device), outputs.z.shape[-1]
    reduction.draw_noise(step, vocabulary)
    reduced = reduction(outputs)
    arrays = reduced.fetch()()
    return step_numbers(arrays, request, vocabulary, sampling.measured_temperature), reduced.chosen
