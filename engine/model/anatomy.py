"""The parts of a model that pruning and the measures need, found by name and proven by a probe.

A decoder layer adds two branches to the residual stream, its attention and its MLP: the
sublayers. Families name them differently and place norms differently; a forward pass decides.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UserError
from .dropped import Dropped
from .gates import Gates
from .probe import ROWS, Recording, is_same, read_tokens

# Paths of submodules of a layer; of nested ones, the first in this order counts.
_ATTENTION = (
    *("self_attn", "self_attention", "attention.output.dense", "attention", "attn"),
    *("multi_head_attention", "self_att.self_attention", "norm_attn_norm.attn"),
    # Replaces attention in hybrid models, or runs beside it.
    *("linear_attn", "mamba", "conv", "temporal_block", "mlstm_layer"),
)
_MLP = (
    *("mlp", "feed_forward", "ffn.ffn", "ffn", "mlp_block", "output.dense"),
    # OPT has no MLP module: its last linear layer's output is what reaches the residual stream.
    "fc2",
    # Experts, and the MLP that is added to them.
    *("block_sparse_moe", "experts", "shared_mlp"),
)

_OPEN, _CLOSED, _MLP_CLOSED = range(ROWS)
"""Rows of the probe: all gates open, all closed, those of the MLPs alone closed."""


@dataclass(frozen=True)
class Layer:
    """A decoder layer and the modules of its sublayers."""

    module: nn.Module
    attention: tuple[nn.Module, ...]
    """Modules whose output a gate replaces: several if the layer adds them up, none if unknown."""
    mlp: tuple[nn.Module, ...]
    """Modules whose output a gate replaces, as for `attention`."""
    middle: nn.Module | None
    """The module whose first input is the residual stream between attention and MLP."""
    parallel: bool
    """Whether attention and MLP run on the same input, and their outputs are added to it."""

    @property
    def has_known_middle(self) -> bool:
        return self.middle is not None or self.parallel


@dataclass(frozen=True)
class Anatomy:
    """The decoder layers of a model, its final norm and its head."""

    layers: list[Layer]
    one_stream: bool
    """Whether each layer reads what the one before returns, [rows, positions, …]."""
    norm: nn.Module | None
    """The module that makes h of the last layer's output; None if the model does more there."""
    head: nn.Module
    """The module of W in z = W h, whose input is h."""
    droppable: bool
    """Whether closing both gates of any layer makes that layer the identity."""

    @property
    def has_known_stream(self) -> bool:
        """Whether the residual stream is known before, between and after all sublayers."""
        return self.one_stream and all(layer.has_known_middle for layer in self.layers)

    @property
    def takes_lens(self) -> bool:
        """Whether the logit lens can read every point of the stream."""
        return self.norm is not None and self.has_known_stream

    def sublayers(self, dropped: Dropped) -> list[nn.Module]:
        """Modules of the dropped attentions and MLPs."""
        attentions = [self.layers[layer].attention for layer in dropped.attention]
        mlps = [self.layers[layer].mlp for layer in dropped.mlp]
        return [*itertools.chain(*attentions, *mlps)]


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """Find a model's layers and head by name, and prove by a probe what they do.

    Raises `UserError` if the model has no decoder layers or does not read text alone.
    """
    family = model.config.model_type
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{family} has no language model head; choose a causal language model")
    if isinstance(head, nn.ModuleList):
        raise UserError(f"{family} has several heads; choose a model that writes text")
    layers = []
    for module in _decoder_layers(model):
        attention, mlp = _parts(module, _ATTENTION), _parts(module, _MLP)
        layers.append(Layer(module, attention, mlp, middle=None, parallel=False))
    return _probe(model, head, layers)


def _decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The one list of modules that runs when the model reads text, unlike towers that see or hear;
    of several, the one of the config's depth."""
    lists = [
        part
        for part in model.modules()
        if isinstance(part, nn.ModuleList) and len(part) and all([*x.children()] for x in part)
    ]
    inner = {below for part in lists for child in part for below in child.modules()}
    outer = [part for part in lists if part not in inner]
    if len(outer) > 1:
        with Recording(itertools.chain(*outer)) as recording:
            read_tokens(model)
        outer = [part for part in outer if all(recording.runs[child] for child in part)]
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    of_depth = [part for part in outer if len(part) == depth] or outer
    if len(of_depth) != 1:
        raise _no_layers(model)
    return list(of_depth[0])


def _no_layers(model: PreTrainedModel) -> UserError:
    return UserError(
        f"the decoder layers of this {model.config.model_type} model were not found: not one list "
        "of layers runs, each once, when it reads text; prunetui does not know this family"
    )


def _parts(layer: nn.Module, paths: tuple[str, ...]) -> tuple[nn.Module, ...]:
    """The modules at these paths, less those inside or around an earlier one."""
    parts: list[nn.Module] = []
    modules = dict(layer.named_modules())
    for path in paths:
        part = modules.get(path)
        if part is None or isinstance(part, nn.ModuleList):
            continue
        if not any(part in {*other.modules()} or other in {*part.modules()} for other in parts):
            parts.append(part)
    return tuple(parts)


def _probe(model: PreTrainedModel, head: nn.Module, layers: list[Layer]) -> Anatomy:
    """Derive an anatomy from one recorded pass, with gates closed in two of its rows."""
    inside = {part for layer in layers for part in layer.module.modules()}
    outside = [part for part in model.modules() if part not in inside and not [*part.children()]]
    watched = {head, *outside}
    for layer in layers:
        watched |= {layer.module, *layer.module.children(), *layer.attention}
    with _probe_gates(layers), Recording(watched) as recording:
        read_tokens(model)
    if any(recording.runs[layer.module] != 1 for layer in layers):
        raise _no_layers(model)
    if head not in recording.inputs:
        raise UserError(
            f"the head of this {model.config.model_type} model does not read one vector for each "
            "position; prunetui does not know this family"
        )
    one_stream = _is_one_stream(recording, layers)
    return Anatomy(
        layers=[_with_middle(layer, recording) for layer in layers],
        one_stream=one_stream,
        norm=_find_norm(recording, outside, layers[-1], head),
        head=head,
        droppable=one_stream and all(_is_droppable(recording, layer) for layer in layers),
    )


def _probe_gates(layers: list[Layer]) -> Gates:
    rows = torch.arange(ROWS)
    attentions = itertools.chain(*(layer.attention for layer in layers))
    mlps = itertools.chain(*(layer.mlp for layer in layers))
    return Gates(
        dict.fromkeys(attentions, rows == _CLOSED)
        | dict.fromkeys(mlps, (rows == _CLOSED) | (rows == _MLP_CLOSED))
    )


def _is_one_stream(recording: Recording, layers: list[Layer]) -> bool:
    """Whether every layer's input and output were recorded, and each reads what the one before
    returns."""
    modules = [layer.module for layer in layers]
    return all(part in recording.inputs and part in recording.outputs for part in modules) and all(
        is_same(recording.outputs[before], recording.inputs[after])
        for before, after in itertools.pairwise(modules)
    )


def _is_droppable(recording: Recording, layer: Layer) -> bool:
    """Whether the layer's output is its input where both its gates are closed."""
    stream, output = recording.inputs[layer.module], recording.outputs[layer.module]
    return bool(layer.attention and layer.mlp) and is_same(output[_CLOSED], stream[_CLOSED])


def _find_norm(
    recording: Recording, outside: list[nn.Module], last: Layer, head: nn.Module
) -> nn.Module | None:
    """The module that makes the head's input of the last layer's output."""
    stream, h = recording.outputs.get(last.module), recording.inputs[head]
    for part in outside:
        if is_same(recording.inputs.get(part), stream) and is_same(recording.outputs.get(part), h):
            return part
    return None


def _with_middle(layer: Layer, recording: Recording) -> Layer:
    """The layer with its `middle`, or else `parallel` if its output is the sum of both branches."""
    stream, output = recording.inputs.get(layer.module), recording.outputs.get(layer.module)
    if stream is None or output is None or not (layer.attention and layer.mlp):
        return layer
    for part in layer.module.children():
        if _is_middle(recording.inputs.get(part), stream, output):
            return dataclasses.replace(layer, middle=part)
    added = recording.outputs.get(layer.attention[0])
    if len(layer.attention) > 1 or added is None or added.shape != stream.shape:
        return layer
    device = output.device
    expected = stream[_MLP_CLOSED].to(device) + added[_MLP_CLOSED].to(device)
    return dataclasses.replace(layer, parallel=is_same(output[_MLP_CLOSED], expected))


def _is_middle(part_input: Tensor | None, stream: Tensor, output: Tensor) -> bool:
    """Whether a child of a layer reads the residual stream between attention and MLP: its input
    equals the layer's input just where the attention's gate is closed."""
    return (
        part_input is not None
        and part_input.shape == stream.shape
        and is_same(part_input[_CLOSED], stream[_CLOSED])
        and not torch.equal(part_input[_OPEN].to(stream.device), stream[_OPEN])
        # Of Reformer's two streams, the attention's is not what the MLP is added to.
        and (
            is_same(part_input[_MLP_CLOSED], output[_MLP_CLOSED])
            or not is_same(output[_CLOSED], stream[_CLOSED])
        )
    )
