"""A step of one position for Llama-like models in half the operations of the stock forward pass.

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
from ..model.llama import Norm, rotary_angles
from ..model.outputs import Outputs
from .kv_cache import GrowingLayer, cache_bytes

SUPPORTED = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def supports_llama_step(model: PreTrainedModel, cache: DynamicCache) -> bool:
    """Whether `LlamaStep` can run this model: supported class, one device, full attention in every
    layer."""
    return (
        type(model) in SUPPORTED
        and model.config._attn_implementation == STOCK_ATTENTION
        and len({parameter.device for parameter in model.parameters()}) == 1
        and all(isinstance(layer, GrowingLayer) for layer in cache.layers)
    )


class LlamaStep:
    """Reads one position in every row by calling the model's layers directly, without hooks.

    Valid as long as the linear layers' `forward` and the chosen attention stay the same.
    """

    def __init__(self, model: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        """`closed` maps attentions and MLPs to bool [rows], true where a gate is closed."""
        self._embed = model.model.embed_tokens
        self._rotary = model.model.rotary_emb
        self._layers = [
            (_Attention(layer, closed), _Mlp(layer, closed)) for layer in model.model.layers
        ]
        self._norm = Norm(model.model.norm)
        self._head = model.lm_head.forward

    def __call__(self, tokens: Tensor, cache: DynamicCache, length: int) -> Outputs:
        """Read int64 [rows, 1] after what the cache holds."""
        x = self._embed(tokens)
        cos, sin = (angle[:, :, None] for angle in rotary_angles(self._rotary, x, length))
        streams = [x]
        caches: list[Any] = cache.layers
        for (attention, mlp), layer_cache in zip(self._layers, caches, strict=True):
            x = x + attention(x, cos, sin, layer_cache)
            streams.append(x)
            x = x + mlp(x)
            streams.append(x)
        h = self._norm(x)
        return Outputs(h[:, 0], self._head(h)[:, 0], torch.cat(streams, dim=1).transpose(0, 1))

    def cache_bytes(self, cache: DynamicCache) -> int:
        return cache_bytes(cache)


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
        has_norms = hasattr(module, "q_norm")
        self._q_norm = Norm(module.q_norm) if has_norms else None
        self._k_norm = Norm(module.k_norm) if has_norms else None

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, cache: GrowingLayer) -> Tensor:
        heads = (len(x), 1, -1, self._width)
        x = self._norm(x)
        q, k, v = self._q(x).view(heads), self._k(x).view(heads), self._v(x).view(heads)
        if self._q_norm and self._k_norm:
            q, k = self._q_norm(q), self._k_norm(k)
        qk = torch.cat((q, k), dim=2)
        qk = qk * cos + qk.roll(self._width // 2, dims=-1) * sin
        q, k = qk.split((q.shape[2], k.shape[2]), dim=2)
        keys, values = cache.update(k.transpose(1, 2), v.transpose(1, 2))
        # Queries that share a key head are grouped.
        q = q.reshape(len(x), keys.shape[1], -1, self._width)
        attended = self._attend(q, keys, values, None, self._scaling)
        added = self._out(attended.reshape(len(x), 1, -1))
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
