"""Proof at load that the lockstep decodes the model: its logits against stock transformers.

Neither the names of a family's modules nor the tests of our own step are trusted: a few tokens go
through the prefill, the single steps and the rows of the lockstep, with everything installed for
decoding, and must give the logits that the model gave as it was loaded.
"""

import itertools
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..model.dropped import Dropped
from ..model.reference import PROMPT, STEPS
from ..model.weight_group import WeightGroup
from .lockstep import Lockstep

PREFILL_ENDS = (2, PROMPT)
"""Positions at which the parts end that the prompt is read in."""

TOLERANCE = {torch.float32: 2e-4, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Largest difference that rounding explains, as `difference` measures it: ten times and more what
SmolLM2-135M shows (9e-6 in float32, 0.02 in bfloat16). A wrong position, mask or weight moves
logits by 0.1 to 2."""


@dataclass(frozen=True)
class Proof:
    """Result of comparing the lockstep with the references of its models."""

    reread: frozenset[WeightGroup]
    """Models whose caches give other logits than their forward pass."""
    notes: list[str]
    """Sentences for readers of the numbers."""


def prove(lockstep: Lockstep, lanes: list[tuple[WeightGroup, Dropped]]) -> Proof:
    """Compare each row that drops nothing with its model's reference, if there is one.

    Overwrites the caches. Raises `UserError` for a model that gives other logits even if all tokens
    are read again at every step.
    """
    slow = [
        f"{group.name} keeps no cache that prunetui knows, so every step reads all tokens again, "
        "which is slow."
        for group in lockstep.rereading
        if group not in lockstep.reread
    ]
    references = {
        row: group.reference
        for row, (group, gates) in enumerate(lanes)
        if group.reference is not None and not gates
    }
    if not references:
        return Proof(frozenset(), slow)
    # Rows without a reference read any text.
    any_reference = next(iter(references.values()))
    texts = [references.get(row, any_reference).tokens for row in range(len(lanes))]
    z, positions = lockstep_logits(lockstep, torch.stack(texts))
    failed: set[WeightGroup] = set()
    notes = dict.fromkeys(slow)
    for row, reference in references.items():
        group = lanes[row][0]
        name, dtype = group.name, group.model.dtype
        tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
        from_full = difference(z[:, row], reference.full[positions], dtype)
        from_generate = difference(z[-STEPS:, row], reference.generated, dtype)
        if min(from_full, from_generate) > tolerance:
            if group in lockstep.reread:
                raise UserError(
                    f"{name} cannot be decoded: its logits are not those of one forward pass of "
                    f"transformers (they differ by {from_full:.2g} of their standard deviation)"
                )
            failed.add(group)
            notes[
                f"{name} gives other logits with a cache than in one forward pass (by "
                f"{from_full:.2g} of their standard deviation), so every step reads all tokens "
                "again, which is slow."
            ] = None
        elif from_full > tolerance:
            notes[
                f"{name} gives other logits with a cache, as generate of transformers reads it, "
                f"than in one forward pass (by {from_full:.2g} of their standard deviation)."
            ] = None
        elif from_generate > tolerance:
            notes[
                f"{name} decodes as its forward pass says; generate of transformers gives other "
                f"logits (by {from_generate:.2g} of their standard deviation)."
            ] = None
    return Proof(frozenset(failed), [*notes])


def lockstep_logits(lockstep: Lockstep, texts: Tensor) -> tuple[Tensor, list[int]]:
    """Read texts, int64 [rows, PROMPT + STEPS - 1]; return logits and the position of each read.

    The logits are float32 [reads, rows, vocabulary] on the CPU. The prompt is read in two parts, as
    a long one is, if all models can; then tokens one by one.
    """
    ends = PREFILL_ENDS if lockstep.reads_in_parts else PREFILL_ENDS[-1:]
    ends = [*ends, *range(ends[-1] + 1, texts.shape[1] + 1)]
    # A captured step's logits are overwritten by the next one's.
    z = [lockstep.prefill(texts[:, : ends[0]], STEPS).z.float().cpu()]
    z += [
        lockstep.advance(texts[:, begin:end]).z.float().cpu()
        for begin, end in itertools.pairwise(ends)
    ]
    return torch.stack(z), [end - 1 for end in ends]


def difference(z: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """Root mean square of z - expected over the standard deviation of `expected`.

    Both are [positions, vocabulary]; infinite where only one of the two is finite. The worst
    position counts in float32, the median in 16 bits: there, rounding alone can send a token to
    another expert of a mixture.
    """
    finite = expected.isfinite()
    if not torch.equal(z.isfinite(), finite):
        return float("inf")
    differences = []
    for row, reference, mask in zip(z.double(), expected.double(), finite, strict=True):
        rms = (row - reference)[mask].square().mean().sqrt().item() if mask.any() else 0.0
        scale = reference[mask].std(correction=0).item() if rms else 1.0
        differences.append(rms / scale if scale else float("inf"))
    return statistics.median_high(differences) if dtype.itemsize == 2 else max(differences)
