"""Masks and pruned weights against slow references written from the papers' formulas."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.variants.pruning.importance import measure_similarity
from prunetui.engine.variants.pruning.layerwise import sparsify_model
from prunetui.engine.variants.pruning.sparsify import magnitude, sparsegpt, wanda
from prunetui.engine.variants.recipes import Method, Pattern, Sparsify
from prunetui.engine.variants.sparsity import Sparsity, find_sparsity
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..support.models import FAMILIES, make_model, zero_output
from ..support.references import (
    inverse_hessians,
    reference_magnitude,
    reference_sparsegpt,
    reference_wanda,
)

WINDOWS = [torch.arange(first, first + 24) for first in (3, 40, 110, 170)]


def example(rows: int = 12, columns: int = 32, tokens: int = 100) -> tuple[Tensor, Tensor]:
    """Random W [rows, columns], and X [tokens, columns] with columns of different size."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, columns, generator=generator)
    x = x @ torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), x


# -- references -----------------------------------------------------------------------------------


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
    """SparseGPT over two blocks: 160 columns are one of 128 and one of 32."""
    w, x = example(columns=columns, tokens=400)
    pruned = sparsegpt(w, 2 / len(x) * x.T @ x, sparsity)
    expected = reference_sparsegpt(w.numpy(), x.numpy(), inverse_hessians(x.numpy()), sparsity)
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


Gate = Callable[[Tensor, nn.Module, int], Tensor]


def silu_gate(product: Tensor, _module: nn.Module, _number: int) -> Tensor:
    gate, up = product.split(len(product) // 2)
    return gate / (1 + (-gate).exp()) * up


def gpt_oss_gate(product: Tensor, module: nn.Module, number: int) -> Tensor:
    product = product + module.get_parameter("gate_up_proj_bias")[number]
    gate, up = product[::2].clamp(max=7.0), product[1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate / (1 + (-1.702 * gate).exp())


GATES = {"mixtral": silu_gate, "qwen2_moe": silu_gate, "gpt_oss": gpt_oss_gate}


class Watched:
    """Matrices of a layer and their inputs, by parameter's name and expert's index, taken from the
    families' own forward passes."""

    def __init__(self, family: str, layer: nn.Module) -> None:
        self.weights: dict[tuple[str, int], np.ndarray] = {}
        self.inputs: dict[tuple[str, int], list[Tensor]] = {}
        self.handles = []
        for path, module in layer.named_modules():
            if path == "mlp.shared_expert_gate":
                continue
            if isinstance(module, nn.Linear | Conv1D):
                weight = module.weight.T if isinstance(module, Conv1D) else module.weight
                self.weights[f"{path}.weight", 0] = weight.numpy().copy()
                hook = partial(self.linear, f"{path}.weight")
            elif path == "mlp.experts":
                for name in ("gate_up_proj", "down_proj"):
                    for number, weight in enumerate(getattr(module, name)):
                        w = weight.T if family == "gpt_oss" else weight
                        self.weights[f"{path}.{name}", number] = w.numpy().copy()
                hook = partial(self.experts, path, GATES[family])
            else:
                continue
            self.handles.append(module.register_forward_pre_hook(hook))

    def linear(self, name: str, _module: nn.Module, args: tuple[Tensor]) -> None:
        self.inputs.setdefault((name, 0), []).append(args[0].reshape(-1, args[0].shape[-1]))

    def experts(self, path: str, gate: Gate, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        hidden, chosen, _ = args
        for token, experts in zip(hidden, chosen.tolist(), strict=True):
            for number in experts:
                weight = torch.from_numpy(self.weights[f"{path}.gate_up_proj", number])
                gated = gate(weight @ token, module, number)
                for name, x in (("gate_up_proj", token), ("down_proj", gated)):
                    self.inputs.setdefault((f"{path}.{name}", number), []).append(x[None])

    def restore(self, layer: nn.Module) -> None:
        """Put the original weights back into the layer."""
        for (name, number), w in self.weights.items():
            current(layer, name, number).copy_(torch.from_numpy(w))


def current(layer: nn.Module, name: str, number: int) -> Tensor:
    """Current weights of a matrix, [out, in]."""
    parameter = layer.get_parameter(name)
    module = layer.get_submodule(name.rpartition(".")[0])
    matrix = parameter[number] if parameter.dim() == 3 else parameter
    transposed = isinstance(module, Conv1D) or type(module).__name__ == "GptOssExperts"
    return matrix.T if transposed else matrix


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_matrix_of_every_family_is_pruned_in_order(family: str, method: Method) -> None:
    """Each layer is pruned on the inputs that the pruned layers before give; the rest stays."""
    baseline = WeightGroup(model := make_model(family), find_anatomy(model))
    group = baseline.copy()
    part = Sparsify(method, 0.5)
    progress: list[float] = []
    sparsify_model(group.model, group.anatomy, part, WINDOWS, progress.append)
    if method == "magnitude":
        assert progress == [0.25, 0.5, 0.75, 1.0]
    else:
        # Four layers read every window three times.
        reads = 3 * 4 * len(WINDOWS)
        assert sorted({*progress}) == [(number + 1) / reads for number in range(reads)]
        assert progress == sorted(progress)

    own = {id(p) for p in group.model.parameters()} - {id(p) for p in model.parameters()}
    assert own == {
        id(layer.module.get_parameter(name))
        for layer in group.anatomy.layers
        for name, _ in Watched(family, layer.module).weights
    }

    # A layer's own weights are those of before, the layers before it are pruned.
    for before, after in zip(baseline.anatomy.layers, group.anatomy.layers, strict=True):
        watched = Watched(family, after.module)
        pruned = watched.weights
        watched.weights = Watched(family, before.module).weights
        watched.restore(after.module)
        with torch.inference_mode():
            for window in WINDOWS:
                group.model(input_ids=window[None], use_cache=False)
        for handle in watched.handles:
            handle.remove()
        assert watched.inputs.keys() == pruned.keys()
        for place, w in watched.weights.items():
            x = torch.cat(watched.inputs[place]).numpy()
            if method == "magnitude":
                expected = reference_magnitude(w, 0.5)
            elif method == "wanda":
                expected = reference_wanda(w, x, 0.5)
            else:
                hessian = torch.from_numpy(2 / len(x) * x.T @ x)
                expected = sparsegpt(torch.from_numpy(w), hessian, 0.5).numpy()
                assert np.allclose(pruned[place], expected, rtol=1e-3, atol=1e-3)
                continue
            assert np.array_equal(pruned[place], expected)
        for place, w in pruned.items():
            current(after.module, *place).copy_(torch.from_numpy(w))


def test_an_expert_that_no_token_reaches_is_named() -> None:
    group = WeightGroup(model := make_model("mixtral"), find_anatomy(model))
    router = model.get_parameter("model.layers.1.mlp.gate.weight")
    router.zero_()  # of equal experts the same two each time
    with pytest.raises(UserError, match=r"never reach expert \d of gate_up_proj in .* layer 1"):
        sparsify_model(model, group.anatomy, Sparsify("wanda", 0.5), WINDOWS, lambda _: None)


def test_fused_experts_of_an_unknown_kind_are_refused_and_nothing_is_changed() -> None:
    group = WeightGroup(model := make_model("mixtral"), find_anatomy(model))
    del model.get_submodule("model.layers.3.mlp.experts").has_gate
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError, match="is no matrix and no experts' of a known layout"):
        sparsify_model(model, group.anatomy, Sparsify("wanda", 0.5), WINDOWS, lambda _: None)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_inputs_that_overflow_are_refused() -> None:
    group = WeightGroup(model := make_model("llama"), find_anatomy(model))
    model.get_parameter("model.layers.2.post_attention_layernorm.weight").fill_(1e30)
    with pytest.raises(UserError, match="a matrix is multiplied by on the calibration text overf"):
        sparsify_model(model, group.anatomy, Sparsify("sparsegpt", 0.5), WINDOWS, lambda _: None)


def test_a_stream_without_a_direction_is_not_ranked() -> None:
    group = WeightGroup(model := make_model("gpt2"), find_anatomy(model))
    model.get_parameter("transformer.wte.weight")[WINDOWS[0][3]] = 0
    model.get_parameter("transformer.wpe.weight")[3] = 0
    with pytest.raises(UserError, match="somewhere 0 or no number, and has no direction"):
        measure_similarity(model, group.anatomy, WINDOWS, lambda _: None)


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
    found = find_sparsity(group, Dropped())
    assert found.zeros == pytest.approx(zeros, abs=1e-3)
    assert found.pattern == pattern


def test_sparsity_is_that_of_what_is_not_dropped() -> None:
    model = make_model("llama")
    group = WeightGroup(model, find_anatomy(model))
    for kind in ("attn", "mlp"):
        zero_output(model, 1, kind)
    assert find_sparsity(group, Dropped()).zeros > 0.05
    assert find_sparsity(group, Dropped(frozenset({1}), frozenset({1}))).zeros == 0
    assert find_sparsity(group, Dropped(frozenset({1}))).zeros > 0.02
    every = Dropped(frozenset(range(4)), frozenset(range(4)))
    assert find_sparsity(group, every) == Sparsity(0.0, None)
