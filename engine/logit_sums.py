"""The sums over the vocabulary that all measures of a step's logits are made of."""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class LogitSums(NamedTuple, Generic[T]):
    """Sums over the vocabulary of one lane, or of several: of numbers, of arrays, of tensors.

    x is lane 0's logits, y the lane's own, d = y - x; e = exp((y - max y) / T) is a multiple of the
    lane's probabilities q, and e₀ the same of x, a multiple of lane 0's p. A token with e = 0, or
    with e₀ = 0, is left out of the sums of z and d that it would weight: it may be minus infinity.
    """

    e: T
    """Σ e: the normalizer of q."""
    e_y: T
    """Σ e y"""
    e_d: T
    """Σ e d"""
    e_e0: T
    """Σ e e₀"""
    e_e: T
    """Σ e²"""
    e0_d: T
    """Σ e₀ d"""
    e0_d_d: T
    """Σ e₀ d²"""
    e0_e0_d: T
    """Σ e₀² d"""
    e0_e0_d_d: T
    """Σ e₀² d²"""
    y: T
    """Σ y"""
    x_x: T
    """Σ x²"""
    x_d: T
    """Σ x d"""
    d_d: T
    """Σ d²"""
