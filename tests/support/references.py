"""Slow references, written in NumPy from the papers' formulas."""

import numpy as np
from prunetui.engine.variants.recipes import Pattern


def cos(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def reference_magnitude(w: np.ndarray, sparsity: float | Pattern) -> np.ndarray:
    w = w.copy()
    if isinstance(sparsity, Pattern):
        return reference_groups(w, np.abs(w), sparsity)
    flat = w.reshape(-1)
    flat[np.argsort(np.abs(flat), kind="stable")[: int(flat.size * sparsity)]] = 0
    return w


def reference_wanda(w: np.ndarray, x: np.ndarray, sparsity: float | Pattern) -> np.ndarray:
    w = w.copy()
    scores = np.abs(w) * np.sqrt((x**2).sum(axis=0))
    if isinstance(sparsity, Pattern):
        return reference_groups(w, scores, sparsity)
    for row, score in zip(w, scores, strict=True):
        row[np.argsort(score, kind="stable")[: int(len(row) * sparsity)]] = 0
    return w


def reference_groups(w: np.ndarray, scores: np.ndarray, pattern: Pattern) -> np.ndarray:
    for row, score in zip(w, scores, strict=True):
        for begin in range(0, len(row), pattern.m):
            lowest = np.argsort(score[begin : begin + pattern.m], kind="stable")[: pattern.n]
            row[begin + lowest] = 0
    return w


def inverse_hessians(x: np.ndarray) -> list[np.ndarray]:
    """Inverses for `reference_sparsegpt` of the dampened Hessian of inputs, [tokens, columns].

    After column i is frozen, what is left has the inverse Hessian of the columns behind it: the
    inverse of H without its first i columns, computed anew instead of from a factorization.
    """
    x = x.astype(np.float64)
    h = 2 / len(x) * x.T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    h += 0.01 * np.diag(h).mean() * np.eye(len(h))
    return [np.linalg.inv(h[i:, i:]) for i in range(len(h))]


def reference_sparsegpt(
    w: np.ndarray,
    x: np.ndarray,
    inverses: list[np.ndarray],
    sparsity: float | Pattern,
    block: int = 128,
) -> np.ndarray:
    """Optimal brain surgeon, one weight column after another, with explicit inverses of `x`."""
    w = w.astype(np.float64).copy()
    w[:, ~x.any(axis=0)] = 0
    columns = w.shape[1]
    mask = np.zeros(w.shape, dtype=bool)
    for i in range(columns):
        if isinstance(sparsity, Pattern):
            if i % sparsity.m == 0:
                ahead = range(i, i + sparsity.m)
                scores = np.stack([w[:, j] ** 2 / inverses[j][0, 0] for j in ahead], axis=1)
                for row, score in enumerate(scores):
                    mask[row, i + np.argsort(score, kind="stable")[: sparsity.n]] = True
        elif i % block == 0:
            ahead = range(i, min(i + block, columns))
            scores = np.stack([w[:, j] ** 2 / inverses[j][0, 0] for j in ahead], axis=1)
            flat = np.zeros(scores.size, dtype=bool)
            flat[np.argsort(scores.reshape(-1), kind="stable")[: int(scores.size * sparsity)]] = (
                True
            )
            mask[:, i : i + len(ahead)] = flat.reshape(scores.shape)
        error = np.where(mask[:, i], w[:, i], 0) / inverses[i][0, 0]
        w[:, i:] -= np.outer(error, inverses[i][0])
        w[mask[:, i], i] = 0
    return w
