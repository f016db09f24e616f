"""The next token in a form of a lane, beside the baseline's distribution p."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..measure.drift import finite_or_none
from ..measure.top_k import argmax
from ..trace.blame import NextToken


@torch.inference_mode()
def kl_divergence(p: Tensor, q: Tensor, temperature: float) -> Tensor:
    """KL(p ‖ q) in nats of logits [..., vocabulary] at temperature T: float64 [...].

    NaN or infinite where one of the two has no softmax, or q gives no probability to a token that p
    has. Where p is 0, as at minus infinity, nothing is added.
    """
    log_p = (p.double() / temperature).log_softmax(dim=-1)
    log_q = (q.double() / temperature).log_softmax(dim=-1)
    probabilities = log_p.exp()
    differences = torch.where(probabilities == 0, 0, log_p - log_q)
    return (probabilities * differences).sum(dim=-1)


class NextTokenReader:
    """Reader of the next token in any form of a lane, from its logits."""

    def __init__(
        self,
        p: Tensor,
        tokens: tuple[int, int],
        temperature: float,
        texts: Mapping[int, str],
    ) -> None:
        """`p`: the baseline's logits [vocabulary]; `tokens`: the most probable ones of the baseline
        and of the lane as it is, whose logits make the gap."""
        self._p = p
        self._tokens = tokens
        self._temperature = temperature
        self._texts = texts

    def __call__(self, z: Tensor) -> NextToken:
        """Read the logits [vocabulary] of a form."""
        kl = kl_divergence(self._p, z.to(self._p.device), self._temperature)
        token = most_probable(z)
        baselines, lanes = (float(z[token]) for token in self._tokens)
        if token is None:
            return NextToken(kl=None, gap=None, token=0, text="", not_numbers=True)
        return NextToken(
            kl=finite_or_none(float(kl)),
            gap=finite_or_none(baselines - lanes),
            token=token,
            text=self._texts[token],
        )


def most_probable(z: Tensor) -> int | None:
    """The most probable token of logits [vocabulary], the first of equal ones; None where they
    have no softmax."""
    token = int(argmax(z[None])[0])
    return token if torch.isfinite(z[token]) else None
