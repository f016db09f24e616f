"""What each layer would say, and what each sublayer changes in the spaces h, z and p.

The logit lens (nostalgebraist, 2020) reads a point of the residual stream as if it were the last
one: through the final norm and the head. Layerwise transitions: arXiv 2603.24652.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import OptionError, UserError
from ..model.anatomy import Anatomy
from ..model.detokenize import TokenTexts
from ..model.weight_group import WeightGroup
from ..trace import records
from .drift import finite_or_none

POINTS = 16
"""Points read at a time: the lens of all points of a deep model in float64 is large."""

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


def transitions(points: Tensor, z: Tensor, temperature: float) -> list[records.Transition]:
    """Changes from each point to the next: what each sublayer's output does in h, z and p.

    points: [points, hidden], one lane's stream before attention 0 and after every sublayer, taken
    as h; z: [points, vocabulary], its lens. Where attention and MLP run in parallel, the
    MLP's output is added to a stream that has the attention's already.
    """
    z = z.double()
    logp = (z / temperature).log_softmax(dim=-1)
    p = logp.exp()
    numbers = {
        "cos_h": _neighbours(points.double()).to(z.device),
        "cos_z": _neighbours(z),
        "cos_p": _neighbours(p),
        "kl": (p[:-1] * (logp[:-1] - logp[1:])).sum(dim=-1),
    }
    return [
        records.Transition(**dict(zip(numbers, map(finite_or_none, row), strict=True)))
        for row in torch.stack([*numbers.values()], dim=1).tolist()
    ]


def _neighbours(vectors: Tensor) -> Tensor:
    """Cosine similarity of each row to the next row."""
    return torch.cosine_similarity(vectors[:-1], vectors[1:], dim=-1, eps=0.0)


@torch.inference_mode()
def read_lens(
    group: WeightGroup, points: Tensor, own_z: Tensor, temperature: float, texts: TokenTexts
) -> records.LaneLens:
    """Read one lane's stream, [2 layers + 1, hidden], with its own model's norm and head.

    `own_z` [vocabulary] are the model's own logits at the last point. Raises `UserError` if the
    lens gives others: then the family does more with its logits than is known here.
    """
    model, anatomy = group.model, group.anatomy
    top: list[tuple[int, float | None]] = []
    raw_top: list[tuple[int, float | None]] = []
    changes: list[records.Transition] = []
    z = own_z[None]
    # Consecutive batches share a point, for the change between them.
    for first in range(0, len(points) - 1, POINTS):
        batch = points[first : first + POINTS + 1]
        z = lens_logits(model, anatomy, batch)
        new = slice(1 if first else 0, None)
        top += _top(z[new], temperature)
        raw_top += _top(lens_logits(model, anatomy, batch[new], raw=True), temperature)
        changes += transitions(batch, z, temperature)
    if (z[-1] - own_z).double().norm() > TOLERANCE * own_z.double().norm():
        raise UserError(
            f"a {model.config.model_type} model does more with its logits than a logit lens "
            "knows; its layers cannot be read"
        )
    return records.LaneLens(
        tokens=[token for token, _ in top],
        texts=[_text(texts, *token_and_prob) for token_and_prob in top],
        probs=[prob for _, prob in top],
        raw_tokens=[token for token, _ in raw_top],
        raw_texts=[_text(texts, *token_and_prob) for token_and_prob in raw_top],
        raw_probs=[prob for _, prob in raw_top],
        transitions=changes,
    )


def _text(texts: TokenTexts, token: int, prob: float | None) -> str:
    """Text of a token; empty where the logits are not numbers: any token would be the highest."""
    return "" if prob is None else texts[token]


def _top(z: Tensor, temperature: float) -> list[tuple[int, float | None]]:
    """The most probable token of each point and its probability under softmax(z / T)."""
    highest = z.max(dim=-1)
    scaled = z.double() / temperature
    probs = (highest.values.double() / temperature - scaled.logsumexp(dim=-1)).exp()
    return [*zip(highest.indices.tolist(), map(finite_or_none, probs.tolist()), strict=True)]
