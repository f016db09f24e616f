"""Masks and weights against slow references written from the papers' formulas."""

import numpy as np
import pytest
import torch
from prunetui.engine.anatomy import find_anatomy
from prunetui.engine.errors import UserError
from prunetui.engine.pruning.layerwise import linears, matrix, sparsify_model
from prunetui.engine.pruning.sparsify import magnitude, sparsegpt, wanda
from prunetui.engine.recipes import Pattern, Sparsify
from prunetui.engine.weights import WeightGroup, find_sparsity
from torch import Tensor

from .models import FAMILIES, make_model

FUSED = {"mixtral", "qwen2_moe", "gpt_oss"}
WINDOWS = [torch.arange(3, 27), torch.arange(40, 64)]


def example(rows: int = 12, columns: int = 32, tokens: int = 100) -> tuple[Tensor, Tensor]:
    """W [rows, columns] and X [tokens, columns] whose columns differ in size."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, columns, generator=generator)
    x = x @ torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), x


# -- references -----------------------------------------------------------------------------------


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


def reference_sparsegpt(
    w: np.ndarray, x: np.ndarray, sparsity: float | Pattern, block: int = 128
) -> np.ndarray:
    """Optimal brain surgeon, one weight column after another, with explicit inverses.

    After column i is frozen, what is left has the inverse Hessian of the columns behind it: the
    inverse of H without its first i columns, computed anew instead of from a factorization.
    """
    w = w.astype(np.float64).copy()
    x = x.astype(np.float64)
    h = 2 / len(x) * x.T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h += 0.01 * np.diag(h).mean() * np.eye(len(h))
    columns = w.shape[1]
    inverses = [np.linalg.inv(h[i:, i:]) for i in range(columns)]
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


SPARSITIES = pytest.mark.parametrize("sparsity", [0.5, 0.3, Pattern(2, 4), Pattern(1, 8)])


@SPARSITIES
def test_magnitude(sparsity: float | Pattern) -> None:
    w, _ = example()
    assert np.array_equal(magnitude(w, sparsity).numpy(), reference_magnitude(w.numpy(), sparsity))


@SPARSITIES
def test_wanda(sparsity: float | Pattern) -> None:
    w, x = example()
    pruned = wanda(w, x.square().sum(dim=0), sparsity)
    assert np.array_equal(pruned.numpy(), reference_wanda(w.numpy(), x.numpy(), sparsity))


@pytest.mark.parametrize("columns", [32, 160])
@SPARSITIES
def test_sparsegpt(sparsity: float | Pattern, columns: int) -> None:
    """160 columns are a block of 128 and one of 32."""
    w, x = example(columns=columns, tokens=400)
    pruned = sparsegpt(w, 2 / len(x) * x.T @ x, sparsity)
    expected = reference_sparsegpt(w.numpy(), x.numpy(), sparsity)
    assert np.array_equal(pruned.numpy() == 0, expected == 0)
    assert pruned.numpy() == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_sparsegpt_leaves_a_smaller_error_than_wanda() -> None:
    w, x = example(tokens=400)
    squares = x.square().sum(dim=0)
    errors = [
        ((pruned - w) @ x.T).norm().item()
        for pruned in (sparsegpt(w, 2 / len(x) * x.T @ x, 0.5), wanda(w, squares, 0.5))
    ]
    assert errors[0] < errors[1]


def test_an_input_that_is_always_zero_loses_its_weights() -> None:
    w, x = example()
    x[:, 5] = 0
    pruned = sparsegpt(w, 2 / len(x) * x.T @ x, 0.25)
    assert (pruned[:, 5] == 0).all()
    assert pruned.isfinite().all()


# -- whole models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - FUSED))
def test_every_matrix_of_every_family_is_pruned_in_order(family: str, method: str) -> None:
    """Each from the inputs that the pruned layers before give; nothing else changes."""
    baseline = WeightGroup(model := make_model(family), find_anatomy(model))
    group = baseline.copy()
    part = Sparsify(method, 0.5)
    progress: list[float] = []
    sparsify_model(group.model, group.anatomy, part, WINDOWS, progress.append)
    assert progress == [0.25, 0.5, 0.75, 1.0]

    pruned = {m for layer in group.anatomy.layers for m in linears(layer.module)}
    owned = {id(m.weight) for m in pruned}
    shared = {id(p) for p in model.parameters()}
    assert pruned
    assert {id(p) for p in group.model.parameters()} - shared == owned

    if method == "sparsegpt":
        return
    for before, after in zip(baseline.anatomy.layers, group.anatomy.layers, strict=True):
        inputs = {linear: [] for linear in linears(after.module)}
        originals = dict(zip(linears(after.module), linears(before.module), strict=True))
        kept = {linear: linear.weight for linear in inputs}
        for linear, original in originals.items():
            linear.weight = original.weight
        handles = [
            linear.register_forward_pre_hook(
                lambda _m, args, seen=seen: seen.append(args[0].reshape(-1, args[0].shape[-1]))
            )
            for linear, seen in inputs.items()
        ]
        with torch.inference_mode():
            for window in WINDOWS:
                group.model(input_ids=window[None], use_cache=False)
        for handle in handles:
            handle.remove()
        for linear, seen in inputs.items():
            w = matrix(originals[linear]).numpy()
            if method == "magnitude":
                expected = reference_magnitude(w, 0.5)
            else:
                expected = reference_wanda(w, torch.cat(seen).numpy(), 0.5)
            linear.weight = kept[linear]
            assert np.array_equal(matrix(linear).numpy(), expected)


@pytest.mark.parametrize("family", sorted(FUSED))
def test_fused_experts_are_refused_and_nothing_is_changed(family: str) -> None:
    group = WeightGroup(model := make_model(family), find_anatomy(model))
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match=f"this {family} model: its experts are fused"):
        sparsify_model(model, group.anatomy, Sparsify("wanda", 0.5), WINDOWS, lambda _: None)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_pattern_that_does_not_divide_the_inputs_is_refused() -> None:
    group = WeightGroup(model := make_model("llama"), find_anatomy(model))
    part = Sparsify("wanda", Pattern(2, 5))
    with pytest.raises(UserError, match="5 does not divide a matrix's 32 inputs"):
        sparsify_model(model, group.anatomy, part, WINDOWS, lambda _: None)


@pytest.mark.parametrize(
    ("sparsity", "zeros", "pattern"),
    [(0.5, 0.5, None), (Pattern(2, 4), 0.5, "2:4"), (Pattern(4, 8), 0.5, "4:8")],
)
def test_what_sparsity_there_is_is_found(
    sparsity: float | Pattern, zeros: float, pattern: str | None
) -> None:
    model = make_model("gpt2")
    group = WeightGroup(model, find_anatomy(model)).copy()
    part = Sparsify("magnitude", sparsity)
    sparsify_model(group.model, group.anatomy, part, [], lambda _: None)
    found = find_sparsity(group)
    assert found.zeros == pytest.approx(zeros, abs=1e-3)
    assert found.pattern == pattern
