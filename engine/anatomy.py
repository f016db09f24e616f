"""Where a model keeps what pruning and the measures need: found by name, proven by a probe.

A decoder layer adds two branches to the residual stream, its attention and its MLP: the
sublayers. Families name them differently and place norms differently; a forward pass decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .errors import UserError
from .gates import Gates, first_tensor

_LAYERS = ("layers", "h", "blocks")
_ATTENTION = ("self_attn", "self_attention", "attention", "attn", "conv")
# OPT has no MLP module: its last linear layer's output is what reaches the residual stream.
_MLP = ("mlp", "feed_forward", "ffn", "fc2")


@dataclass(frozen=True)
class Layer:
    """A decoder layer; `attention` and `mlp` are the modules whose outputs a gate replaces."""

    module: nn.Module
    attention: nn.Module
    mlp: nn.Module
    middle: nn.Module | None
    """Takes the residual stream between attention and MLP as its first input; None where the
    two run in parallel on the same input."""


@dataclass(frozen=True)
class Anatomy:
    layers: list[Layer]
    norm: nn.Module | None
    """Makes h of the last layer's output; None if the model does more than that there."""
    head: nn.Module
    """W in z = W h: its input is h."""
    droppable: bool
    """Closing both gates of any layer makes that layer the identity."""

    def sublayers(self, attention: Iterable[int], mlp: Iterable[int]) -> list[nn.Module]:
        """The attentions and the MLPs of these layers."""
        attentions = [self.layers[number].attention for number in attention]
        return attentions + [self.layers[number].mlp for number in mlp]


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """Raises `UserError` if the model has no decoder layers of a known kind."""
    family = model.config.model_type
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{family} has no language model head; choose a causal language model")
    layers = []
    for number, module in enumerate(_decoder_layers(model)):
        attention, mlp = _child(module, _ATTENTION), _child(module, _MLP)
        if attention is None or mlp is None:
            raise UserError(
                f"layer {number} of this {family} model has no attention and MLP of a known name; "
                "prunetui does not know this family"
            )
        layers.append(Layer(module, attention, mlp, middle=None))
    return _probe(model, head, layers)


def _decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    depth = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.ModuleList)
            and name.rpartition(".")[2] in _LAYERS
            and len(module) == depth
        ):
            return list(module)
    raise UserError(
        f"the decoder layers of this {model.config.model_type} model were not found; "
        "prunetui does not know this family"
    )


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


@torch.inference_mode()
def _probe(model: PreTrainedModel, head: nn.Module, layers: list[Layer]) -> Anatomy:
    """Run two equal rows, the gates open in row 0 and closed in row 1, and see what passes where.

    The stream's middle is the input that equals the layer's input just when the gates are closed.
    """
    inside = {part for layer in layers for part in layer.module.modules()}
    outside = [part for part in model.modules() if part not in inside and not [*part.children()]]
    seen_in: dict[nn.Module, Tensor] = {}
    seen_out: dict[nn.Module, Tensor] = {}

    def watch(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        inputs = args[0] if args else kwargs.get("hidden_states")
        for value, seen in ((inputs, seen_in), (first_tensor(output), seen_out)):
            if isinstance(value, Tensor) and value.ndim and value.shape[0] % 2 == 0:
                seen[module] = value.reshape(2, -1)

    closed = torch.tensor([False, True])
    gates = Gates({part: closed for layer in layers for part in (layer.attention, layer.mlp)})
    watched = {head, *outside}
    for layer in layers:
        watched |= {layer.module, *layer.module.children()}
    handles = [module.register_forward_hook(watch, with_kwargs=True) for module in watched]
    try:
        tokens = torch.arange(1, 5, device=model.device).repeat(2, 1)
        model(input_ids=tokens, use_cache=False)
    finally:
        gates.remove()
        for handle in handles:
            handle.remove()

    def same(one: Tensor | None, other: Tensor) -> bool:
        # A layer's input can still be where the layer before it is. What broken weights make is
        # NaN, wherever it is passed on.
        if one is None or one.shape != other.shape:
            return False
        one = one.to(other.device)
        return bool(((one == other) | ((one != one) & (other != other))).all())

    def is_middle(part: nn.Module, stream: Tensor) -> bool:
        inputs = seen_in.get(part)
        return (
            inputs is not None
            and inputs.shape == stream.shape
            and same(inputs[1], stream[1])
            and not torch.equal(inputs[0].to(stream.device), stream[0])
        )

    proven = []
    for layer in layers:
        stream = seen_in[layer.module]
        middle = next((part for part in layer.module.children() if is_middle(part, stream)), None)
        proven.append(Layer(layer.module, layer.attention, layer.mlp, middle))
    last, hidden = seen_out[layers[-1].module], seen_in[head]
    return Anatomy(
        layers=proven,
        norm=next(
            (p for p in outside if same(seen_in.get(p), last) and same(seen_out[p], hidden)), None
        ),
        head=head,
        droppable=all(
            same(seen_out[layer.module][1], seen_in[layer.module][1]) for layer in layers
        ),
    )
