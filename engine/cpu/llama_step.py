"""One position through a model of Llama's kind on a CPU, by our own functions in a single call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..model.llama import Norm, next_rotation
from .kernels.attention import (
    COMMON,
    COS,
    KEY_ROOM,
    LENGTH,
    PARTS,
    READ,
    ROOM,
    SIN,
    VALUE_ROOM,
    attends,
    attention,
    attention_room,
    part_sizes,
)
from .kernels.linear import COLUMNS, FEW, OUTPUTS, RESIDUAL, multiplies, product, product_room
from .kernels.packing import Narrow
from .linears import read_weight
from .runtime.instruction import INPUT, KIND, OUTPUT, PRODUCT, ROWS, Task
from .runtime.interpreter import Program

TASKS = 7
"""Of a layer: queries, keys and values; these turned; attention, and its parts joined; its output;
gate and up; down."""


def supports_compiled_step(model: Any, rows: int) -> bool:
    """Of a model of Llama's kind with so many rows."""
    weights = (
        read_weight(module)
        for layer in model.model.layers
        for module in layer.modules()
        if isinstance(module, nn.Linear)
    )
    return (
        rows <= FEW
        and attends(model.model.layers[0].self_attn.head_dim)
        and model.config.hidden_act == "silu"
        and all(
            weight.dtype == model.dtype and (isinstance(weight, Narrow) or multiplies(weight))
            for weight in weights
        )
    )


class CompiledLlamaStep:
    """Reads one position in every row, past the hooks of gates and streams.

    To be made anew when the model's weights have been moved.
    """

    def __init__(self, model: Any, closed: Mapping[nn.Module, Tensor]) -> None:
        """`closed` maps attentions and MLPs to bool [rows], true where a gate is closed."""
        layers = model.model.layers
        first = layers[0].self_attn
        self._embed, self._angles = model.model.embed_tokens, model.model.rotary_emb
        self._norm, self._head = Norm(model.model.norm), model.lm_head.forward
        self._rows, self._width = len(closed[first]), first.head_dim
        self._queries, self._keys = (
            linear.out_features // self._width for linear in (first.q_proj, first.k_proj)
        )
        self._program = Program(
            [task for layer in layers for task in _tasks(layer, closed)], model.dtype
        )
        table = self._program.table
        table[:, ROWS] = self._rows
        products = table[table[:, KIND] == PRODUCT]
        self._room = max(
            product_room(self._rows, products[:, COLUMNS].max()), attention_room(self._width)
        )
        sizes = table[0, OUTPUTS], first.o_proj.in_features, table[5, OUTPUTS]
        # What lies between the tasks of a layer, the same for every layer.
        self._between = [torch.empty(self._rows, size, dtype=model.dtype) for size in sizes]
        for number, held in zip((0, 3, 5), self._between, strict=True):
            table[number::TASKS, OUTPUT] = table[number + 1 :: TASKS, INPUT] = held.data_ptr()
        self.cache_read = 0
        """Bytes of keys and values that the last step has read."""

    def __call__(self, tokens: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor, Tensor]:
        """h, z and the streams, as in `lockstep.Outputs`, of tokens, int64 [rows, 1]."""
        x = self._embed(tokens)
        cos, sin = (angle.float() for angle in next_rotation(self._angles, x, cache))
        layers: list[Any] = cache.layers
        streams = x.new_empty(2 * len(layers) + 1, *x[:, 0].shape)
        streams[0] = x[:, 0]
        places = streams.data_ptr() + streams[0].nbytes * np.arange(len(streams))
        before, between, behind = places[:-1:2], places[1::2], places[2::2]
        table = self._program.table
        table[0::TASKS, INPUT] = table[4::TASKS, RESIDUAL] = before
        table[4::TASKS, OUTPUT] = table[5::TASKS, INPUT] = table[6::TASKS, RESIDUAL] = between
        table[6::TASKS, OUTPUT] = behind
        turns, attentions, joins = table[1::TASKS], table[2::TASKS], table[3::TASKS]
        turns[:, COS], turns[:, SIN] = cos.data_ptr(), sin.data_ptr()
        length = 0
        for task, layer in zip(turns, layers, strict=True):
            keys, values, common, length = layer.extend(x, self._keys, self._width)
            task[KEY_ROOM], task[VALUE_ROOM] = keys.data_ptr(), values.data_ptr()
            task[COMMON] = common.data_ptr()
            task[LENGTH], task[ROOM] = length, keys.shape[2]
        sizes = part_sizes(self._rows, self._queries, self._width, length)
        parts = torch.empty(sizes, dtype=torch.float32)
        read = torch.zeros(torch.get_num_threads(), dtype=torch.int64)
        turns[:, PARTS], turns[:, READ] = parts.data_ptr(), read.data_ptr()
        for tasks in (attentions, joins):
            tasks[:, LENGTH : READ + 1] = turns[:, LENGTH : READ + 1]
        self._program.run(self._room)
        self.cache_read = int(read.sum()) * 2 * self._width * x.element_size()
        h = self._norm(streams[-1])
        return h, self._head(h[:, None])[:, 0], streams


def _tasks(layer: Any, closed: Mapping[nn.Module, Tensor]) -> list[Task]:
    of, mlp = layer.self_attn, layer.mlp
    width = of.head_dim
    norms = None
    if hasattr(of, "q_norm"):
        norms = of.q_norm.weight, of.k_norm.weight, of.q_norm.variance_epsilon
    queries, keys = (linear.out_features // width for linear in (of.q_proj, of.k_proj))
    return [
        product(_layers(of.q_proj, of.k_proj, of.v_proj), norm=_norm(layer.input_layernorm)),
        *attention(queries, keys, width, of.scaling, norms, _mask(closed[of])),
        product(_layers(of.o_proj), closed=_mask(closed[of])),
        product(_layers(mlp.gate_proj, mlp.up_proj), norm=_norm(layer.post_attention_layernorm)),
        product(_layers(mlp.down_proj), closed=_mask(closed[mlp]), gated=True),
    ]


def _layers(*linears: nn.Linear) -> list[tuple[Tensor | Narrow, Tensor | None]]:
    return [(read_weight(linear), linear.bias) for linear in linears]


def _norm(module: Any) -> tuple[Tensor, float]:
    return module.weight, module.variance_epsilon


def _mask(closed: Tensor) -> Tensor | None:
    return closed if closed.any() else None
