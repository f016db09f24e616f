"""What each layer would say, and what each sublayer changes in the spaces h, z and p.

The logit lens (nostalgebraist, 2020) reads a point of the residual stream as if it were the last
one: through the final norm and the head. Layerwise transitions: arXiv 2603.24652.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .anatomy import Anatomy
from .detokenize import TokenTexts
from .drift import finite
from .errors import UserError
from .trace import records
from .weights import WeightGroup

POINTS = 16
"""At a time: a deep model's lens of all its points in float64 is large."""

TRANSITION = ("cos_h", "cos_z", "cos_p", "kl")


def check_lens(group: WeightGroup) -> None:
    """Raise `UserError` where the family has no final norm of its own."""
    if group.anatomy.norm is None:
        raise UserError(
            f"a {group.model.config.model_type} model does more than a norm before its head; "
            "its layers cannot be read through a logit lens"
        )


@torch.inference_mode()
def lens_logits(
    model: PreTrainedModel, anatomy: Anatomy, stream: Tensor, *, raw: bool = False
) -> Tensor:
    """z, [points, vocabulary], of points of the stream, [points, hidden]; `raw` leaves the norm
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
    """Per sublayer, what its output changes.

    points: [2 layers + 1, hidden], one lane's stream before attention 0 and after every sublayer,
    which stands for h; z: [2 layers + 1, vocabulary], its lens. Where attention and MLP run in
    parallel, the MLP's output is added to a stream that has the attention's already.
    """
    cos_h = _neighbours(points.double())
    of_z: list[Tensor] = []
    for first in range(0, len(z) - 1, POINTS):
        some = z[first : first + POINTS + 1].double()
        logp = (some / temperature).log_softmax(dim=-1)
        p = logp.exp()
        kl = (p[:-1] * (logp[:-1] - logp[1:])).sum(dim=-1)
        of_z.append(torch.stack([_neighbours(some), _neighbours(p), kl]))
    numbers = torch.cat([cos_h[None].to(z.device), torch.cat(of_z, dim=1)]).T.tolist()
    return [
        records.Transition(**dict(zip(TRANSITION, map(finite, row), strict=True)))
        for row in numbers
    ]


def _neighbours(vectors: Tensor) -> Tensor:
    """Cosine similarity of each row to the next."""
    return torch.cosine_similarity(vectors[:-1], vectors[1:], dim=-1, eps=0.0)


@torch.inference_mode()
def read_lens(
    group: WeightGroup, points: Tensor, temperature: float, texts: TokenTexts
) -> records.LaneLens:
    """Read one lane's stream, [2 layers + 1, hidden], with its own model's norm and head."""
    z = lens_logits(group.model, group.anatomy, points)
    raw = lens_logits(group.model, group.anatomy, points, raw=True)
    tokens, probs = _top(z, temperature)
    raw_tokens, raw_probs = _top(raw, temperature)
    return records.LaneLens(
        tokens=tokens,
        texts=[texts[token] for token in tokens],
        probs=probs,
        raw_tokens=raw_tokens,
        raw_texts=[texts[token] for token in raw_tokens],
        raw_probs=raw_probs,
        transitions=transitions(points, z, temperature),
    )


def _top(z: Tensor, temperature: float) -> tuple[list[int], list[float | None]]:
    """The most probable token of each point and its probability under softmax(z / T)."""
    highest = z.max(dim=-1)
    logprobs = highest.values.double() / temperature
    logprobs = logprobs - (z.double() / temperature).logsumexp(dim=-1)
    return highest.indices.tolist(), [finite(prob) for prob in logprobs.exp().tolist()]
