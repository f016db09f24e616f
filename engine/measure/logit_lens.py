"""What each layer would say, and what each sublayer changes in the spaces h, z and p.

The logit lens (nostalgebraist, 2020) reads a point of the residual stream as if it were the last
one: through the final norm and the head. Layerwise transitions: arXiv 2603.24652.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import OptionError, UserError
from ..model.anatomy import Anatomy
from ..model.detokenize import TokenTexts
from ..model.outputs import Outputs
from ..model.weight_group import WeightGroup
from ..trace import records
from .drift import finite_or_none

MOST_BYTES = 512 << 20
"""Most bytes of float64 tensors that reading rows of a weight group takes, beside the logits in the
model's dtype; where all points take more, they are read in parts."""
MOST_BYTES_CPU = 64 << 20
"""The same on a CPU, where the kernel gives larger tensors new pages each time."""
COPIES = 3
"""Float64 tensors of the size of the logits that exist at once."""

TOLERANCE = 0.05
"""Largest error of z, relative to |z|: more than another number of rows makes in bfloat16, and less
than any scale of logits."""


def check_lens(group: WeightGroup) -> None:
    """Raise `UserError` where the family's stream is not known or has no final norm of its own."""
    if not group.anatomy.has_known_stream:
        raise OptionError(
            f"what each sublayer of a {group.model.config.model_type} model adds is not known; "
            "its layers cannot be read through a logit lens"
        )
    if group.anatomy.norm is None:
        raise OptionError(
            f"a {group.model.config.model_type} model does more than a norm before its head; "
            "its layers cannot be read through a logit lens"
        )


@torch.inference_mode()
def lens_logits(
    model: PreTrainedModel, anatomy: Anatomy, stream: Tensor, *, raw: bool = False
) -> Tensor:
    """Logits z [points, vocabulary] of points of the stream [points, hidden]; `raw` leaves the norm
    out.

    Scaled and capped as the model does with its head's output, so that the last point gives the
    model's own z.
    """
    assert anatomy.norm is not None
    # Positions of one row, as the head's hooks expect.
    points = stream[None]
    z = anatomy.head(points if raw else anatomy.norm(points))[0]
    config = model.config.get_text_config()
    # Granite divides, Cohere multiplies, Gemma 2 caps.
    if scaling := getattr(config, "logits_scaling", None):
        z = z / scaling
    if scale := getattr(config, "logit_scale", None):
        z = z * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        z = cap * torch.tanh(z / cap)
    return z


def transitions(points: Tensor, z: Tensor, temperature: float) -> Tensor:
    """Changes from each point to the next: what each sublayer's output does in h, z and p.

    points: [points, ..., hidden], streams before attention 0 and after every sublayer, taken as h;
    z: [points, ..., vocabulary], their lens. Where attention and MLP run in parallel, the MLP's
    output is added to a stream that has the attention's already. Returns float64 [points - 1, ...,
    4], the fields of `trace.records.Transition` in their order.
    """
    cos_h = _neighbours(points.double()).to(z.device)
    z = z.double()
    cos_z = _neighbours(z)
    logp = (z / temperature).log_softmax(dim=-1)
    # Tensors of the size of the logits are freed as soon as they can be: `COPIES`.
    del z
    differences, p = logp[:-1] - logp[1:], logp.exp()
    del logp
    kl = differences.mul_(p[:-1]).sum(dim=-1)
    del differences
    return torch.stack([cos_h, cos_z, _neighbours(p), kl], dim=-1)


def _neighbours(vectors: Tensor) -> Tensor:
    """Cosine similarity of each vector to the next point's."""
    norms = vectors.norm(dim=-1)
    return (vectors[:-1] * vectors[1:]).sum(dim=-1) / (norms[:-1] * norms[1:])


@torch.inference_mode()
def read_lens(
    rows: Mapping[WeightGroup, Sequence[int]],
    outputs: Outputs,
    temperature: float,
    texts: TokenTexts,
    report: Callable[[float], None],
) -> dict[int, records.LaneLens]:
    """Read rows of a step's outputs, each with the norm and the head of its own model.

    A head reads all points of all rows of its weight group in one product, or in as many as
    `MOST_BYTES` makes of it, and one transfer brings all numbers to the host. `report` gets the
    fraction of the rows that is read. Raises `UserError` if a lens gives other logits at the last
    point than its model: then the family does more with its logits than is known here.
    """
    tensors: list[Tensor] = []
    done, row_count = 0, sum(map(len, rows.values()))
    for group, members in rows.items():
        # An index of several rows would be copied to the device, and the host would wait for it.
        streams = torch.stack([outputs.streams[:, row] for row in members], dim=1)
        own_z = torch.stack([outputs.z[row] for row in members])
        most = _points_at_once(own_z)
        tops: list[Tensor] = []
        changes: list[Tensor] = []
        last_z: list[Tensor] = []
        for first in range(0, len(streams), most):
            report((done + len(members) * first / len(streams)) / row_count)
            points = streams[first : first + most]
            z = _lens_of_rows(group, points)
            raw_top = top_tokens(_lens_of_rows(group, points, raw=True), temperature)
            tops.append(torch.cat([top_tokens(z, temperature), raw_top], dim=-1))
            # With the point before, for the change from it.
            z = torch.cat([*last_z, z])
            changes.append(transitions(streams[max(first - 1, 0) : first + most], z, temperature))
            last_z = [z[-1:]]
        tensors += [torch.cat(tops), torch.cat(changes), _errors(last_z[0][0], own_z)]
        done += len(members)
    return _records(rows, _on_host(tensors) if tensors else [], texts)


def _points_at_once(z: Tensor) -> int:
    """Number of points whose lens of all rows, z [rows, vocabulary] at each, is read at a time."""
    most_bytes = MOST_BYTES_CPU if z.device.type == "cpu" else MOST_BYTES
    # One more is kept from the part before.
    return max(1, most_bytes // (COPIES * torch.float64.itemsize * z.numel()) - 1)


def _lens_of_rows(group: WeightGroup, points: Tensor, *, raw: bool = False) -> Tensor:
    """`lens_logits` of points [points, rows, hidden]: [points, rows, vocabulary]."""
    z = lens_logits(group.model, group.anatomy, points.flatten(0, 1), raw=raw)
    return z.unflatten(0, points.shape[:2])


def top_tokens(z: Tensor, temperature: float) -> Tensor:
    """The most probable token and its probability under softmax(z / T): float64 [..., 2]."""
    highest = z.max(dim=-1)
    scaled = z.double() / temperature
    probs = (highest.values.double() / temperature - scaled.logsumexp(dim=-1)).exp()
    return torch.stack([highest.indices.double(), probs], dim=-1)


def _errors(z: Tensor, own_z: Tensor) -> Tensor:
    """Norms of the errors of z [rows, vocabulary] and of the model's own: float64 [rows, 2]."""
    own_z = own_z.to(z.device).double()
    return torch.stack([(z.double() - own_z).norm(dim=-1), own_z.norm(dim=-1)], dim=-1)


def _on_host(tensors: list[Tensor]) -> list[np.ndarray]:
    """Copies of float64 tensors on the host, in one transfer."""
    packed = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    pieces = packed.split([tensor.numel() for tensor in tensors])
    shaped = zip(pieces, tensors, strict=True)
    return [piece.view(tensor.shape).numpy() for piece, tensor in shaped]


def _records(
    rows: Mapping[WeightGroup, Sequence[int]], arrays: list[np.ndarray], texts: TokenTexts
) -> dict[int, records.LaneLens]:
    """Records by row, of three arrays per weight group: [points, rows, tokens, probabilities, raw
    tokens and raw probabilities], `transitions` and `_errors`."""
    lenses: dict[int, records.LaneLens] = {}
    for at, (group, members) in enumerate(rows.items()):
        tops, changes, errors = arrays[3 * at : 3 * at + 3]
        if (errors[:, 0] > TOLERANCE * errors[:, 1]).any():
            raise UserError(
                f"a {group.model.config.model_type} model does more with its logits than a logit "
                "lens knows; its layers cannot be read"
            )
        for index, row in enumerate(members):
            tokens, probs, raw_tokens, raw_probs = tops[:, index].T
            lenses[row] = records.LaneLens(
                *_column(tokens, probs, texts),
                *_column(raw_tokens, raw_probs, texts),
                transitions=[
                    records.Transition(*map(finite_or_none, change))
                    for change in changes[:, index].tolist()
                ],
            )
    return lenses


def _column(
    tokens: np.ndarray, probs: np.ndarray, texts: TokenTexts
) -> tuple[list[int], list[str], list[float | None]]:
    """Tokens, texts and probabilities; no text where the logits are not numbers: any token would be
    the highest."""
    numbers = tokens.astype(int).tolist()
    known = [*map(finite_or_none, probs.tolist())]
    shown = ["" if p is None else texts[token] for token, p in zip(numbers, known, strict=True)]
    return numbers, shown, known
