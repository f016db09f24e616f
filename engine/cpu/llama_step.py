"""One position through a Llama-family model on a CPU, by compiled kernels in a single call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..model.llama import Norm, rotary_angles
from ..model.outputs import Outputs
from .kernels.attention import (
    CAPACITY,
    COS,
    KEY_CACHE,
    LENGTH,
    PART_RESULTS,
    READ_COUNTS,
    SHARED_PREFIXES,
    SIN,
    VALUE_CACHE,
    attention_instructions,
    attention_scratch_size,
    part_results_size,
    supports_head_width,
)
from .kernels.linear import (
    COLUMNS,
    MAX_ROWS,
    OUTPUTS,
    RESIDUAL,
    can_multiply,
    linear_instruction,
    linear_scratch_size,
)
from .kernels.packing import PackedWeight
from .linears import stored_weight
from .runtime.instruction import INPUT, KIND, LINEAR, OUTPUT, ROWS, Instruction
from .runtime.interpreter import Interpreter

PER_LAYER = 7
"""Instructions of a layer: QKV, ROTATE, ATTEND, JOIN, OUT, GATE_UP, DOWN."""
QKV, ROTATE, ATTEND, JOIN, OUT, GATE_UP, DOWN = range(PER_LAYER)


def supports_compiled_step(model: Any, rows: int) -> bool:
    """Whether the kernels can read the weights of a Llama-family model for a number of rows."""
    weights = (
        stored_weight(module)
        for layer in model.model.layers
        for module in layer.modules()
        if isinstance(module, nn.Linear)
    )
    return (
        rows <= MAX_ROWS
        and supports_head_width(model.model.layers[0].self_attn.head_dim)
        and model.config.hidden_act == "silu"
        and all(
            weight.dtype == model.dtype
            and (isinstance(weight, PackedWeight) or can_multiply(weight))
            for weight in weights
        )
    )


class CompiledLlamaStep:
    """Reads one position in every row, past the hooks of gates and streams.

    Holds addresses of the model's weights: to be rebuilt when those have been moved.
    """

    def __init__(self, model: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        """`closed` maps attentions and MLPs to bool [rows], true where a gate is closed."""
        layers = model.model.layers
        attention = layers[0].self_attn
        self._embed, self._rotary = model.model.embed_tokens, model.model.rotary_emb
        self._norm, self._head = Norm(model.model.norm), model.lm_head.forward
        self._rows, self._width = len(closed[attention]), attention.head_dim
        self._queries, self._keys = (
            linear.out_features // self._width for linear in (attention.q_proj, attention.k_proj)
        )
        instructions = [
            instruction for layer in layers for instruction in _layer_instructions(layer, closed)
        ]
        self._interpreter = Interpreter(instructions, model.dtype)
        table = self._interpreter.table
        table[:, ROWS] = self._rows
        most_columns = table[table[:, KIND] == LINEAR][:, COLUMNS].max()
        self._scratch_size = max(
            linear_scratch_size(self._rows, most_columns), attention_scratch_size(self._width)
        )
        # Results that one instruction of a layer hands to the next, shared by all layers.
        sizes = {
            QKV: table[QKV, OUTPUTS],
            JOIN: attention.o_proj.in_features,
            GATE_UP: table[GATE_UP, OUTPUTS],
        }
        self._results = {
            number: torch.empty(self._rows, size, dtype=model.dtype)
            for number, size in sizes.items()
        }
        for number, result in self._results.items():
            table[number::PER_LAYER, OUTPUT] = result.data_ptr()
            table[number + 1 :: PER_LAYER, INPUT] = result.data_ptr()
        self._cache_bytes = 0

    def __call__(self, tokens: Tensor, cache: DynamicCache, length: int) -> Outputs:
        """Read int64 [rows, 1] after the `length` positions that the cache holds."""
        x = self._embed(tokens)
        cos, sin = (angle.float() for angle in rotary_angles(self._rotary, x, length))
        layers: list[Any] = cache.layers
        streams = x.new_empty(2 * len(layers) + 1, *x[:, 0].shape)
        streams[0] = x[:, 0]
        points = streams.data_ptr() + streams[0].nbytes * np.arange(len(streams))
        before, between, after = points[:-1:2], points[1::2], points[2::2]
        table = self._interpreter.table
        qkv, rotate, attend, join, out, gate_up, down = (
            table[number::PER_LAYER] for number in range(PER_LAYER)
        )
        qkv[:, INPUT] = out[:, RESIDUAL] = before
        out[:, OUTPUT] = gate_up[:, INPUT] = down[:, RESIDUAL] = between
        down[:, OUTPUT] = after
        rotate[:, COS], rotate[:, SIN] = cos.data_ptr(), sin.data_ptr()
        end = 0
        for fields, layer in zip(rotate, layers, strict=True):
            keys, values, shared_prefixes, end = layer.extend(x, self._keys, self._width)
            fields[KEY_CACHE], fields[VALUE_CACHE] = keys.data_ptr(), values.data_ptr()
            fields[SHARED_PREFIXES] = shared_prefixes.data_ptr()
            fields[LENGTH], fields[CAPACITY] = end, keys.shape[2]
        size = part_results_size(self._rows, self._queries, self._width, end)
        part_results = torch.empty(size, dtype=torch.float32)
        read_counts = torch.zeros(torch.get_num_threads(), dtype=torch.int64)
        rotate[:, PART_RESULTS] = part_results.data_ptr()
        rotate[:, READ_COUNTS] = read_counts.data_ptr()
        for fields in (attend, join):
            fields[:, LENGTH : READ_COUNTS + 1] = rotate[:, LENGTH : READ_COUNTS + 1]
        self._interpreter.run(self._scratch_size)
        self._cache_bytes = int(read_counts.sum()) * 2 * self._width * x.element_size()
        h = self._norm(streams[-1])
        return Outputs(h, self._head(h[:, None])[:, 0], streams)

    def cache_bytes(self, cache: DynamicCache) -> int:  # noqa: ARG002
        """Bytes of keys and values that the last call has read; a prefix that rows share counts
        once."""
        return self._cache_bytes


def _layer_instructions(layer: Any, closed: Mapping[nn.Module, Tensor]) -> list[Instruction]:
    attention, mlp = layer.self_attn, layer.mlp
    width = attention.head_dim
    norms = None
    if hasattr(attention, "q_norm"):
        q_norm, k_norm = attention.q_norm, attention.k_norm
        norms = q_norm.weight, k_norm.weight, q_norm.variance_epsilon
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    queries, keys = q.out_features // width, k.out_features // width
    closed_attention, closed_mlp = _mask(closed[attention]), _mask(closed[mlp])
    before_attention, before_mlp = (
        (norm.weight, norm.variance_epsilon)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    )
    return [
        linear_instruction(_weights(q, k, v), norm=before_attention),
        *attention_instructions(queries, keys, width, attention.scaling, norms, closed_attention),
        linear_instruction(_weights(attention.o_proj), closed=closed_attention),
        linear_instruction(_weights(mlp.gate_proj, mlp.up_proj), norm=before_mlp),
        linear_instruction(_weights(mlp.down_proj), closed=closed_mlp, gated=True),
    ]


def _weights(*linears: nn.Linear) -> list[tuple[Tensor | PackedWeight, Tensor | None]]:
    return [(stored_weight(linear), linear.bias) for linear in linears]


def _mask(closed: Tensor) -> Tensor | None:
    return closed if closed.any() else None
