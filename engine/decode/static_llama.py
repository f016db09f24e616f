"""A step of one position for Llama-like models, at a position that the device knows.

Every tensor that it reads or writes is where it was in the step before, and nothing is decided by
numbers of the host: a CUDA graph can replay it. Products of layers that read the same input are one
product where their weights lie next to one another.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import DynamicCache, Gemma3ForCausalLM, PreTrainedModel

from ..model.attention import STOCK_ATTENTION
from ..model.fused_weights import fused_parameters
from ..model.llama import Norm
from ..model.outputs import Outputs
from .fixed_cache import FixedLayer, fixed_cache_bytes
from .llama_step import SUPPORTED
from .static_attention import MaskedAttention, Shape, StaticAttention, choose_attention


def supports_static_llama(model: PreTrainedModel) -> bool:
    """Whether `StaticLlamaStep` can run this model: supported class, stock attention, logits as the
    head gives them."""
    config: Any = model.config
    if config._attn_implementation != STOCK_ATTENTION:
        return False
    if type(model) is Gemma3ForCausalLM:
        return not (
            config.final_logit_softcapping
            or config.attn_logit_softcapping
            or config.use_bidirectional_attention
        )
    return type(model) in SUPPORTED


class StaticLlamaStep:
    """Reads one position in every row by calling the model's layers directly, without hooks."""

    def __init__(
        self,
        model: Any,
        closed: Mapping[nn.Module, Tensor],
        cache: DynamicCache,
        position: Tensor,
    ) -> None:
        """`closed` maps attentions and MLPs to bool [rows], true where a gate is closed; `cache` is
        of `FixedLayer` and has a text; `position`, int64 [1], is what a step reads at."""
        self._model = model.model
        self._head = model.lm_head.forward
        self._position = position
        self._attentions: dict[Shape, StaticAttention] = {}
        self._rotations: dict[str | None, _Rotation] = {}
        norm = GemmaNorm if isinstance(model, Gemma3ForCausalLM) else Norm
        self._norm = norm(self._model.norm)
        windows = [
            getattr(layer, "sliding_window", None)
            for layer in DynamicCache(config=model.config).layers
        ]
        layer_caches: list[Any] = cache.layers
        self._sublayers: list[_Attention | _Mlp] = []
        for layer, layer_cache, window in zip(
            self._model.layers, layer_caches, windows, strict=True
        ):
            self._sublayers += [
                self._attention(layer, closed, layer_cache, window, norm),
                _Mlp(layer, closed, norm),
            ]

    def __call__(self, tokens: Tensor) -> Outputs:
        """Read int64 [rows, 1] at the position."""
        for part in (*self._attentions.values(), *self._rotations.values()):
            part.begin()
        x = self._model.embed_tokens(tokens)[:, 0]
        stream = [x]
        for sublayer in self._sublayers:
            x = sublayer(x)
            stream.append(x)
        h = self._norm(x)
        return Outputs(h, self._head(h), torch.stack(stream))

    def cache_bytes(self, cache: DynamicCache) -> int:
        whole_room = any(isinstance(way, MaskedAttention) for way in self._attentions.values())
        return fixed_cache_bytes(cache, whole_room=whole_room)

    def _attention(
        self,
        layer: Any,
        closed: Mapping[nn.Module, Tensor],
        cache: FixedLayer,
        window: int | None,
        norm: "NormKind",
    ) -> "_Attention":
        """One layer's attention, with the mask and the angles that layers of its kind share."""
        module, keys = layer.self_attn, cache.buffers[0]
        rows, key_heads, room, width = keys.shape
        heads = module.config.num_attention_heads
        shape = Shape(
            *(rows, heads, key_heads, width, room, window),
            *(module.scaling, keys.dtype, keys.device),
        )
        if shape not in self._attentions:
            self._attentions[shape] = choose_attention(shape)(shape, self._position)
        # Gemma 3 has other angles where there is a window.
        kind = None if "rope_theta" in module.config.rope_parameters else module.layer_type
        if kind not in self._rotations:
            self._rotations[kind] = _Rotation(self._model, kind, keys, self._position)
        return _Attention(
            layer, closed, cache, self._attentions[shape], self._rotations[kind], norm
        )


class GemmaNorm:
    """RMS norm whose weight is added to 1, as a model's own module has them."""

    def __init__(self, module: Any) -> None:
        # In float32, as the stock norm adds.
        self.weight, self.eps = 1 + module.weight.float(), module.eps

    def __call__(self, x: Tensor) -> Tensor:
        return scale(torch.rms_norm(x, x.shape[-1:], None, self.eps), self.weight)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x and the norm of y, which is not rounded in between."""
        y = torch.rms_norm(y, y.shape[-1:], None, self.eps)
        return torch.addcmul(x, y, self.weight, out=torch.empty_like(x))


NormKind = type[Norm] | type[GemmaNorm]


def scale(x: Tensor, weight: Tensor) -> Tensor:
    """The product in the dtype of `x`, rounded once."""
    if weight.dtype == x.dtype:
        return weight * x
    return torch.mul(x, weight, out=torch.empty_like(x))


class _Rotation:
    """Cosines and sines of a position's rotary embedding, from a table of all positions."""

    def __init__(self, model: Any, kind: str | None, keys: Tensor, position: Tensor) -> None:
        """`kind` of layers, if they differ; `keys` is a cache, [rows, key heads, room, width]."""
        places = torch.arange(keys.shape[2], device=keys.device)[None]
        cos, sin = model.rotary_emb(keys, places, *([] if kind is None else [kind]))
        half = cos.shape[-1] // 2
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        self._table = torch.stack((cos[0], sin[0]), dim=1)
        self._position = position
        self.cos = self.sin = position

    def begin(self) -> None:
        """Read the position, once for all layers."""
        self.cos, self.sin = self._table.index_select(0, self._position).unbind(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate [rows, heads, width]."""
        return torch.addcmul(x * self.cos, x.roll(x.shape[-1] // 2, dims=-1), self.sin)


class _Attention:
    def __init__(
        self,
        layer: Any,
        closed: Mapping[nn.Module, Tensor],
        cache: FixedLayer,
        attend: StaticAttention,
        rotate: _Rotation,
        norm: NormKind,
    ) -> None:
        module = layer.self_attn
        self._closed = _closed_rows(module, closed)
        self._norm = norm(layer.input_layernorm)
        self._qkv = product((module.q_proj, module.k_proj, module.v_proj))
        self._out = module.o_proj.forward
        self._post = GemmaNorm(layer.post_attention_layernorm) if norm is GemmaNorm else None
        self._cache, self._attend, self._rotate = cache, attend, rotate
        keys = cache.buffers[0]
        self._heads, self._key_heads = module.config.num_attention_heads, keys.shape[1]
        self._width = keys.shape[-1]
        self._eps, self._qk_weight = 0.0, None
        if hasattr(module, "q_norm"):
            q, k = norm(module.q_norm), norm(module.k_norm)
            self._eps = q.eps
            self._qk_weight = torch.cat(
                (q.weight.expand(self._heads, -1), k.weight.expand(self._key_heads, -1))
            )

    def __call__(self, stream: Tensor) -> Tensor:
        """Add to the stream, [rows, hidden]."""
        qkv = self._qkv(self._norm(stream)).view(len(stream), -1, self._width)
        qk, v = qkv.split((self._heads + self._key_heads, self._key_heads), dim=1)
        if self._qk_weight is not None:
            qk = scale(torch.rms_norm(qk, qk.shape[-1:], None, self._eps), self._qk_weight)
        q, k = self._rotate(qk).split((self._heads, self._key_heads), dim=1)
        keys, values = self._cache.write(k[:, :, None], v[:, :, None])
        added = self._out(self._attend(q, keys, values).reshape(len(stream), -1))
        return _add(stream, added, self._post, self._closed)


class _Mlp:
    def __init__(self, layer: Any, closed: Mapping[nn.Module, Tensor], norm: NormKind) -> None:
        module, gemma = layer.mlp, norm is GemmaNorm
        self._closed = _closed_rows(module, closed)
        self._norm = norm(
            layer.pre_feedforward_layernorm if gemma else layer.post_attention_layernorm
        )
        self._gate_and_up = product((module.gate_proj, module.up_proj))
        self._activation, self._down = module.act_fn, module.down_proj.forward
        self._post = GemmaNorm(layer.post_feedforward_layernorm) if gemma else None

    def __call__(self, stream: Tensor) -> Tensor:
        """Add to the stream, [rows, hidden]."""
        gate, up = self._gate_and_up(self._norm(stream)).chunk(2, dim=-1)
        added = self._down(self._activation(gate) * up)
        return _add(stream, added, self._post, self._closed)


def _add(stream: Tensor, added: Tensor, norm: GemmaNorm | None, closed: Tensor | None) -> Tensor:
    """The stream and what a sublayer adds to it, after the sublayer's own norm if it has one."""
    total = norm.add(stream, added) if norm else stream + added
    # Of what does not close, the sum is that of a layer without gates, to the last bit.
    return total if closed is None else torch.where(closed, stream, total)


def product(linears: tuple[nn.Linear, ...]) -> Callable[[Tensor], Tensor]:
    """The outputs of several linear layers, one after another in the last dimension."""
    if fused := fused_parameters(linears):
        return partial(linear, weight=fused[0], bias=fused[1])
    forwards = [layer.forward for layer in linears]
    return lambda x: torch.cat([forward(x) for forward in forwards], dim=-1)


def _closed_rows(module: nn.Module, closed: Mapping[nn.Module, Tensor]) -> Tensor | None:
    """bool [rows, 1], or None if every gate is open."""
    rows = closed[module]
    device = next(module.parameters()).device
    return rows[:, None].to(device) if rows.any() else None
