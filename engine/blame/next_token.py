"""The next token in a form of a lane, beside the baseline's distribution p."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..measure.drift import finite_or_none
from ..measure.top_k import argmax
from ..model.kl_divergence import kl_divergence, log_softmax
from ..trace.blame import NextToken


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
        self._log_p = log_softmax(p[None], temperature)
        self._tokens = tokens
        self._temperature = temperature
        self._texts = texts

    def __call__(self, z: Tensor) -> NextToken:
        """Read the logits [vocabulary] of a form."""
        token = most_probable(z)
        baselines, lanes = (float(z[token]) for token in self._tokens)
        if token is None:
            return NextToken(kl=None, gap=None, token=0, text="", not_numbers=True)
        return NextToken(
            kl=self.kl(z),
            gap=finite_or_none(baselines - lanes),
            token=token,
            text=self._texts[token],
        )

    def kl(self, z: Tensor) -> float | None:
        """KL(p ‖ q) in nats of the logits [vocabulary] of a form; None where it is not finite."""
        return finite_or_none(float(kl_divergence(self._log_p, z[None], self._temperature)))


def most_probable(z: Tensor) -> int | None:
    """The most probable token of logits [vocabulary], the first of equal ones; None where they
    have no softmax."""
    token = int(argmax(z[None])[0])
    return token if torch.isfinite(z[token]) else None
