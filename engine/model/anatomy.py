"""Where a model keeps what pruning and the measures need: found by name, proven by a probe.

A decoder layer adds two branches to the residual stream, its attention and its MLP: the
sublayers. Families name them differently and place norms differently; a forward pass decides.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UserError
from ..foreign import foreign_code
from .dropped import Dropped
from .gates import Gates, first_tensor

# Paths below a layer; of a longer path and its beginning, the one that comes first counts.
_ATTENTION = (
    *("self_attn", "self_attention", "attention.output.dense", "attention", "attn"),
    *("multi_head_attention", "self_att.self_attention", "norm_attn_norm.attn"),
    # What stands in attention's place in hybrid models, or runs beside it.
    *("linear_attn", "mamba", "conv", "temporal_block", "mlstm_layer"),
)
_MLP = (
    *("mlp", "feed_forward", "ffn.ffn", "ffn", "mlp_block", "output.dense"),
    # OPT has no MLP module: its last linear layer's output is what reaches the residual stream.
    "fc2",
    # Experts, and what is added to them.
    *("block_sparse_moe", "experts", "shared_mlp"),
)

_ROWS, _POSITIONS = 3, 4
"""Rows of the probe's input."""


@dataclass(frozen=True)
class Layer:
    """A decoder layer; `attention` and `mlp` are the modules whose outputs a gate replaces, several
    where the layer adds them up, none where they were not found."""

    module: nn.Module
    attention: tuple[nn.Module, ...]
    mlp: tuple[nn.Module, ...]
    middle: nn.Module | None
    """Takes the residual stream between attention and MLP as its first input."""
    parallel: bool
    """Attention and MLP run on the same input, and what both return is added to it."""

    @property
    def has_known_middle(self) -> bool:
        return self.middle is not None or self.parallel


@dataclass(frozen=True)
class Anatomy:
    layers: list[Layer]
    one_stream: bool
    """Each layer reads what the one before returns, [rows, positions, …]."""
    norm: nn.Module | None
    """Makes h of the last layer's output; None if the model does more than that there."""
    head: nn.Module
    """W in z = W h: its input is h."""
    droppable: bool
    """Closing both gates of any layer makes that layer the identity."""

    @property
    def has_known_stream(self) -> bool:
        """Before, between and after all sublayers."""
        return self.one_stream and all(layer.has_known_middle for layer in self.layers)

    @property
    def takes_lens(self) -> bool:
        return self.norm is not None and self.has_known_stream

    def sublayers(self, dropped: Dropped) -> list[nn.Module]:
        """Modules of the dropped attentions and MLPs."""
        attentions = [self.layers[layer].attention for layer in dropped.attention]
        mlps = [self.layers[layer].mlp for layer in dropped.mlp]
        return [*itertools.chain(*attentions, *mlps)]


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """Raises `UserError` if the model has no decoder layers or does not read text alone."""
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
    """The list of modules that run when the model reads text, as many as the config says if there
    are several. Towers that see or hear do not run."""
    lists = [
        part
        for part in model.modules()
        if isinstance(part, nn.ModuleList) and len(part) and all([*x.children()] for x in part)
    ]
    inner = {below for part in lists for child in part for below in child.modules()}
    outer = [part for part in lists if part not in inner]
    if len(outer) > 1:
        runs = _runs(model, itertools.chain(*outer))
        outer = [part for part in outer if all(runs[child] for child in part)]
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    deep = [part for part in outer if len(part) == depth] or outer
    if len(deep) != 1:
        raise _no_layers(model)
    return list(deep[0])


def _no_layers(model: PreTrainedModel) -> UserError:
    return UserError(
        f"the decoder layers of this {model.config.model_type} model were not found: not one list "
        "of layers runs, each once, when it reads text; prunetui does not know this family"
    )


def _runs(model: PreTrainedModel, modules: Iterable[nn.Module]) -> Counter[nn.Module]:
    """How often each of these runs."""
    runs: Counter[nn.Module] = Counter()
    handles = [
        module.register_forward_hook(lambda module, *_: runs.update([module]))
        for module in {*modules}
    ]
    try:
        _read_some_tokens(model, rows=1)
    finally:
        for handle in handles:
            handle.remove()
    return runs


@torch.inference_mode()
def _read_some_tokens(model: PreTrainedModel, rows: int) -> None:
    tokens = torch.arange(1, 1 + _POSITIONS, device=model.device).repeat(rows, 1)
    with foreign_code(f"this {model.config.model_type} model does not read text alone"):
        model(input_ids=tokens, use_cache=False)


def _parts(layer: nn.Module, paths: tuple[str, ...]) -> tuple[nn.Module, ...]:
    """What there is at these paths and runs; nothing that is inside another or around it."""
    parts: list[nn.Module] = []
    known = dict(layer.named_modules())
    for path in paths:
        part = known.get(path)
        if part is None or isinstance(part, nn.ModuleList):
            continue
        if not any(part in {*other.modules()} or other in {*part.modules()} for other in parts):
            parts.append(part)
    return tuple(parts)


def _probe(model: PreTrainedModel, head: nn.Module, layers: list[Layer]) -> Anatomy:
    """Run equal rows and see what passes where: the gates are open in row 0, closed in row 1, and
    only the MLPs' closed in row 2.

    The stream's middle is the input that equals the layer's input just when the gates are closed.
    """
    inside = {part for layer in layers for part in layer.module.modules()}
    outside = [part for part in model.modules() if part not in inside and not [*part.children()]]
    seen_in: dict[nn.Module, Tensor] = {}
    seen_out: dict[nn.Module, Tensor] = {}
    runs: Counter[nn.Module] = Counter()

    def watch(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        runs.update([module])
        inputs = args[0] if args else kwargs.get("hidden_states")
        for value, seen in ((inputs, seen_in), (first_tensor(output), seen_out)):
            if not isinstance(value, Tensor):
                continue
            # OPT folds rows and positions into one dimension.
            if value.shape[:2] == (_ROWS, _POSITIONS) or value.shape[:1] == (_ROWS * _POSITIONS,):
                seen[module] = value.reshape(_ROWS, -1)

    closed, half_closed = torch.tensor([False, True, False]), torch.tensor([False, True, True])
    gates = Gates(
        dict.fromkeys(itertools.chain(*(layer.attention for layer in layers)), closed)
        | dict.fromkeys(itertools.chain(*(layer.mlp for layer in layers)), half_closed)
    )
    watched = {head, *outside}
    for layer in layers:
        watched |= {layer.module, *layer.module.children(), *layer.attention}
    handles = [module.register_forward_hook(watch, with_kwargs=True) for module in watched]
    try:
        with gates:
            _read_some_tokens(model, _ROWS)
    finally:
        for handle in handles:
            handle.remove()

    if any(runs[layer.module] != 1 for layer in layers):
        raise _no_layers(model)
    if head not in seen_in:
        raise UserError(
            f"the head of this {model.config.model_type} model does not read one vector for each "
            "position; prunetui does not know this family"
        )

    def same(one: Tensor | None, other: Tensor | None) -> bool:
        # A layer's input can still be where the layer before it is. What broken weights make is
        # NaN, wherever it is passed on.
        if one is None or other is None or one.shape != other.shape:
            return False
        one = one.to(other.device)
        return bool(((one == other) | ((one != one) & (other != other))).all())

    def is_middle(part: nn.Module, stream: Tensor, result: Tensor) -> bool:
        inputs = seen_in.get(part)
        return (
            inputs is not None
            and inputs.shape == stream.shape
            and same(inputs[1], stream[1])
            and not torch.equal(inputs[0].to(stream.device), stream[0])
            # Of Reformer's two streams, the attention's is not what the MLP is added to.
            and (same(inputs[2], result[2]) or not same(result[1], stream[1]))
        )

    def proven(layer: Layer) -> Layer:
        stream, result = seen_in.get(layer.module), seen_out.get(layer.module)
        if stream is None or result is None or not (layer.attention and layer.mlp):
            return layer
        children = layer.module.children()
        middle = next((part for part in children if is_middle(part, stream, result)), None)
        added = seen_out.get(layer.attention[0])
        return dataclasses.replace(
            layer,
            middle=middle,
            parallel=middle is None
            and len(layer.attention) == 1
            and added is not None
            and added.shape == stream.shape
            and same(result[2], stream[2].to(result.device) + added[2].to(result.device)),
        )

    ends = [
        (seen_in[layer.module], seen_out[layer.module])
        for layer in layers
        if layer.module in seen_in and layer.module in seen_out
    ]
    one_stream = len(ends) == len(layers) and all(
        same(before[1], after[0]) for before, after in itertools.pairwise(ends)
    )
    last, hidden = seen_out.get(layers[-1].module), seen_in[head]
    return Anatomy(
        layers=[proven(layer) for layer in layers],
        one_stream=one_stream,
        norm=next(
            (p for p in outside if same(seen_in.get(p), last) and same(seen_out.get(p), hidden)),
            None,
        ),
        head=head,
        droppable=one_stream
        and all(layer.attention and layer.mlp for layer in layers)
        and all(same(after[1], before[1]) for before, after in ends),
    )
