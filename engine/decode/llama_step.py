"""One position through a model of Llama's kind, in half the operations of the stock model.

A step of a small model spends as long between the products of its linear layers as in them. The
products are those of the model's own layers, and so are the results, given the same attention, bit
for bit.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from ..model.attention import STOCK_ATTENTION, Attend, attend_by_kernel, chosen_attention
from ..model.llama import Norm, next_rotation
from .kv_cache import RoomyLayer

KIND = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def is_of_llamas_kind(model: PreTrainedModel, cache: DynamicCache) -> bool:
    """And on one device, every layer attending to all positions."""
    return (
        type(model) in KIND
        and model.config._attn_implementation == STOCK_ATTENTION
        and len({parameter.device for parameter in model.parameters()}) == 1
        and all(isinstance(layer, RoomyLayer) for layer in cache.layers)
    )


class LlamaStep:
    """Reads one position in every row, past the hooks of gates and streams.

    To be made anew when the model's linear layers have others' products.
    """

    def __init__(self, model: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        """`closed` maps attentions and MLPs to bool [rows], true where a gate is closed."""
        self._embed = model.model.embed_tokens
        self._angles = model.model.rotary_emb
        self._layers = [
            (_Attention(layer, closed), _Mlp(layer, closed)) for layer in model.model.layers
        ]
        self._norm = Norm(model.model.norm)
        self._head = model.lm_head.forward

    def __call__(self, tokens: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor, Tensor]:
        """h, z and the streams, as in `lockstep.Outputs`, of tokens, int64 [rows, 1]."""
        x = self._embed(tokens)
        cos, sin = (angle[:, :, None] for angle in next_rotation(self._angles, x, cache))
        streams = [x]
        caches: list[Any] = cache.layers
        for (attention, mlp), held in zip(self._layers, caches, strict=True):
            x = x + attention(x, cos, sin, held)
            streams.append(x)
            x = x + mlp(x)
            streams.append(x)
        h = self._norm(x)
        return h[:, 0], self._head(h)[:, 0], torch.cat(streams, dim=1).transpose(0, 1)


class _Attention:
    def __init__(self, layer: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        module = layer.self_attn
        self._closed = _mask(module, closed)
        self._norm = Norm(layer.input_layernorm)
        self._width: int = module.head_dim
        self._attend: Attend = chosen_attention(module) or attend_by_kernel
        self._scaling = module.scaling
        self._q, self._k, self._v = (
            linear.forward for linear in (module.q_proj, module.k_proj, module.v_proj)
        )
        self._out = module.o_proj.forward
        normed = hasattr(module, "q_norm")
        self._q_norm = Norm(module.q_norm) if normed else None
        self._k_norm = Norm(module.k_norm) if normed else None

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, held: RoomyLayer) -> Tensor:
        each = (len(x), 1, -1, self._width)
        x = self._norm(x)
        q, k, v = self._q(x).view(each), self._k(x).view(each), self._v(x).view(each)
        if self._q_norm and self._k_norm:
            q, k = self._q_norm(q), self._k_norm(k)
        both = torch.cat((q, k), dim=2)
        both = both * cos + both.roll(self._width // 2, dims=-1) * sin
        q, k = both.split((q.shape[2], k.shape[2]), dim=2)
        keys, values = held.update(k.transpose(1, 2), v.transpose(1, 2))
        # The queries that share a key head.
        q = q.reshape(len(x), keys.shape[1], -1, self._width)
        mixed = self._attend(q, keys, values, None, self._scaling)
        added = self._out(mixed.reshape(len(x), 1, -1))
        return added if self._closed is None else added.masked_fill(self._closed, 0)


class _Mlp:
    def __init__(self, layer: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        module = layer.mlp
        self._closed = _mask(module, closed)
        self._norm = Norm(layer.post_attention_layernorm)
        self._gate, self._up = module.gate_proj.forward, module.up_proj.forward
        self._activation, self._down = module.act_fn, module.down_proj.forward

    def __call__(self, x: Tensor) -> Tensor:
        x = self._norm(x)
        added = self._down(self._activation(self._gate(x)) * self._up(x))
        return added if self._closed is None else added.masked_fill(self._closed, 0)


def _mask(module: nn.Module, closed: Mapping[nn.Module, Tensor]) -> Tensor | None:
    rows = closed[module]
    device = next(module.parameters()).device
    return rows[:, None, None].to(device) if rows.any() else None
