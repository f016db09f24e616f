"""What is blamed: the tokens before a step, which all forms of a lane read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..trace.blame import BlamedTokens


@dataclass(frozen=True)
class BlamedStep:
    """Fixed tokens, after which the next token of a lane is blamed on its parts."""

    lane: int
    tokens: BlamedTokens
    """Whose tokens they are."""
    text: Sequence[int]
    """All of them, the prompt's first."""
    prompt: int
    """Number of tokens of the prompt."""
    temperature: float
    """T in p = softmax(z / T)."""
    texts: Mapping[int, str]
    """Texts of single tokens."""
