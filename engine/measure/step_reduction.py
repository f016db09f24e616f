"""A step on the model's device: outputs reduced, tokens chosen; and its fetch to the host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.outputs import Outputs
from ..trace.records import Sampling
from .reductions import reduce_logits
from .sampling import draw_gumbel, sample

CPU = torch.device("cpu")


@dataclass(frozen=True)
class StepRequest:
    """Choice of what is recorded of a step."""

    lanes: int
    """Number of rows that choose tokens, the first ones; the others are only measured."""
    candidates: int
    """Top tokens per lane."""
    answers: Tensor
    """Tokens of the answers, int64 [answers]."""


class ReducedArrays(NamedTuple):
    """All that the host needs of a step, as float64, which is exact for a token id."""

    tokens: np.ndarray
    """Chosen tokens [lanes]."""
    ranked: np.ndarray
    """Tokens of the k highest logits [rows, k], k at least the number of candidates."""
    sums: np.ndarray
    """`LogitSums` [parts, rows, fields], of parts of the vocabulary."""
    highest: np.ndarray
    """The k highest logits [rows, k]."""
    logits: np.ndarray
    """Logits [rows, lanes + lanes · candidates + answers] of the chosen tokens, the candidates of
    each lane and the answers."""
    h_dots: np.ndarray
    """Dot products of h [3, variants]: `Reductions`."""
    stream_dots: np.ndarray
    """Dot products of the residual streams [3, points, variants]: `Reductions`."""


@dataclass(frozen=True)
class Reduced:
    """A step's reductions on the device, before they are fetched."""

    chosen: Tensor
    """Chosen tokens, int64 [lanes]."""
    parts: list[Tensor]
    """The tensors of `ReducedArrays` in their order; on a device other than the CPU views of
    `packed`."""
    packed: Tensor | None
    """All `parts` one after the other, float64 [numbers]; None on the CPU, where nothing is
    fetched."""

    def fetch(self) -> Callable[[], ReducedArrays]:
        """Begin the transfer to the host; return what waits for it and gives the arrays.

        On CUDA the transfer is queued on the current stream, so that what is queued after it may
        overwrite the tensors while the host does not wait.
        """
        packed = self.packed
        if packed is None:
            return lambda: ReducedArrays(*(part.double().numpy() for part in self.parts))
        if packed.device.type != "cuda":
            return lambda: self._unpack(packed.cpu())
        # Into pinned memory, as it does not block.
        on_host, arrived = packed.to(CPU, non_blocking=True), torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(packed.device))

        def wait() -> ReducedArrays:
            arrived.synchronize()
            return self._unpack(on_host)

        return wait

    def _unpack(self, packed: Tensor) -> ReducedArrays:
        """Arrays in the shapes of the parts."""
        pieces = packed.split([part.numel() for part in self.parts])
        shaped = zip(pieces, self.parts, strict=True)
        return ReducedArrays(*(piece.view(part.shape).numpy() for piece, part in shaped))


class StepReduction:
    """Reduction of each step of a trace: top-k, sums and dot products, and the choice of tokens.

    A call reads and writes only the device, in shapes that the outputs' shapes say, and what it
    keeps stays where it lies: a CUDA graph can hold it while no token is forced.
    """

    def __init__(self, sampling: Sampling, request: StepRequest, device: torch.device) -> None:
        """The outputs and the noise lie on `device`."""
        self._sampling = sampling
        self._request = request
        self._answers = request.answers.to(device)
        self.noise = torch.empty(0, device=device)
        """Gumbel noise of the step drawn for last, float32 [vocabulary]; empty before."""

    @torch.inference_mode()
    def draw_noise(self, step: int, vocabulary: int) -> None:
        """Draw the noise by which the step samples its tokens, in place; nothing where the highest
        logit is taken."""
        if self._sampling.temperature:
            if len(self.noise) != vocabulary:
                self.noise = torch.empty(vocabulary, device=self.noise.device)
            draw_gumbel(self.noise, self._sampling.seed, step)

    @torch.inference_mode()
    def __call__(self, outputs: Outputs, forced: Mapping[int, int] | None = None) -> Reduced:
        """Reduce the outputs and choose each lane's token, with the noise that was drawn last.

        `forced` are tokens by lane that replace what those lanes would choose.
        """
        lanes, sampling = self._request.lanes, self._sampling
        candidates, z = self._request.candidates, outputs.z
        reductions = reduce_logits(outputs, max(candidates, 2), sampling.measured_temperature)
        if sampling.temperature:
            chosen = sample(z[:lanes].float(), sampling, self.noise)
        else:
            chosen = reductions.tokens[:lanes, 0]
        if forced:
            chosen = chosen.clone()
            for lane, token in forced.items():
                chosen[lane].fill_(token)
        top = reductions.tokens[:lanes, :candidates]
        parts = [
            *(chosen, reductions.tokens, reductions.sums, reductions.highest),
            z.index_select(-1, torch.cat([chosen, top.flatten(), self._answers])),
            *(reductions.h_dots, reductions.stream_dots),
        ]
        if z.device == CPU:
            return Reduced(chosen, parts, None)
        packed = torch.cat([part.double().flatten() for part in parts])
        return Reduced(chosen, parts, packed)
