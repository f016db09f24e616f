"""The pretended devices see what the host waits for on a GPU, and what it copies there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ..support.devices import CPU, SECOND, Devices, put, where

READS: dict[str, Callable[[Any], object]] = {
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "__array__": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "__bool__": lambda x: bool(x.any()),
    "__int__": lambda x: int(x[0]),
    "__float__": lambda x: float(x[0]),
    "__index__": lambda x: range(x.long()[0]),
    "__format__": lambda x: f"{x[0]}",
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "__contains__": lambda x: 3 in x,
    "nonzero": lambda x: x.nonzero(),
    "argwhere": lambda x: x.argwhere(),
    "where": lambda x: torch.where(x > 1),
    "masked_select": lambda x: x.masked_select(x > 1),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "bincount": lambda x: x.long().bincount(),
    "histc": lambda x: x.histc(3),
    "multinomial": lambda x: x.multinomial(1),
    "split": lambda x: x.split(x.long()[1]),
    "narrow": lambda x: x.narrow(0, x.long()[0], 1),
    "full": lambda x: torch.full((2,), x[0], device=SECOND),
    "tensor": lambda x: torch.tensor([x[0], x[1]]),
    "masked_fill": lambda x: x.masked_fill(x > 1, x[0]),
    "index_fill": lambda x: x.index_fill(0, x.long()[:1], x[0]),
    "copy_": lambda x: torch.zeros(3).copy_(x),
}

INDEXING: dict[str, Callable[[Any], object]] = {
    "by a mask": lambda x: x[x > 1],
    "by a number": lambda x: x[x.long()[0]],
    "to a number": lambda x: x[: x.long()[0]],
    "write by a mask": lambda x: x.__setitem__(x > 1, x[0]),
    "write by a number": lambda x: x.__setitem__(x.long()[0], 3.0),
    "write to the host": lambda x: torch.zeros(3).__setitem__(0, x[0]),
}

FREE: list[Callable[[Any], object]] = [
    lambda x: x.count_nonzero(),
    lambda x: torch.isin(x, x),
    lambda x: torch.where(x > 1, x, 0.0),
    lambda x: x.masked_fill(x > 1, 0.0),
    lambda x: x.__setitem__(x > 1, 0.0),
    lambda x: x.__setitem__(slice(2), 3.0),
    lambda x: x.repeat_interleave(x.long(), output_size=3),
    lambda x: x.repeat_interleave(2),
    lambda x: x[x.long().argsort()],
    lambda x: x * torch.tensor(2.0),
    lambda x: x[0].fill_(2),
    lambda x: x.sort().values.topk(2),
    lambda x: x.to(SECOND).to(torch.float64).to(x),
    lambda x: torch.cat([x, x]).copy_(x.repeat(2)),
    lambda _: torch.full((2,), 3, device=SECOND),
    lambda _: torch.arange(3, device=SECOND),
]

COPIES: dict[str, list[Callable[[Any], object]]] = {
    "tensor": [
        lambda _: torch.tensor([1, 2], device=SECOND),
        lambda _: torch.tensor(1, device=SECOND),
    ],
    "as_tensor": [lambda _: torch.as_tensor([1.0], device=SECOND)],
    "new_tensor": [lambda x: x.new_tensor([1.0])],
    "to": [
        lambda _: torch.zeros(3).to(SECOND),
        lambda _: torch.zeros(3).to(device=SECOND),
        lambda x: torch.zeros(3).to(x),
    ],
    "copy_": [lambda x: x.copy_(torch.zeros(3)), lambda x: x.copy_(torch.tensor(1.0))],
    "__getitem__": [lambda x: x[torch.tensor([0, 1])], lambda x: x[[0, 1]]],
    "__setitem__": [
        lambda x: x.__setitem__(slice(2), torch.zeros(2)),
        lambda x: x.__setitem__(0, 3.0),
        lambda x: x.__setitem__(torch.tensor([0, 1]), 3.0),
    ],
}


def _run(function: Callable[[Any], object]) -> Devices:
    with Devices() as devices:
        function(put(torch.tensor([1.0, 1.0, 1.0]), SECOND))
    return devices


@pytest.mark.parametrize("name", READS)
def test_what_the_host_reads_is_a_wait(name: str) -> None:
    assert _run(READS[name]).waits == [name]


@pytest.mark.parametrize("name", INDEXING)
def test_an_index_that_the_host_reads_is_a_wait(name: str) -> None:
    function = "__setitem__" if name.startswith("write") else "__getitem__"
    assert _run(INDEXING[name]).waits == [function]


@pytest.mark.parametrize("number", range(len(FREE)))
def test_what_stays_on_the_device_is_neither_a_wait_nor_a_copy(number: int) -> None:
    devices = _run(FREE[number])
    assert devices.waits == []
    assert devices.copies == []


@pytest.mark.parametrize("name", COPIES)
def test_what_comes_from_the_host_is_a_copy(name: str) -> None:
    for function in COPIES[name]:
        devices = _run(function)
        assert devices.copies == [name]
        assert devices.waits == []


def test_a_copy_is_where_it_was_copied_to() -> None:
    x = put(torch.ones(3), SECOND)
    with Devices():
        for here in (x.to("cpu"), x.cpu(), x.to(device=CPU), x.to(torch.zeros(1))):
            assert where(here) == CPU
        assert where(torch.zeros(3).to(x)) == SECOND
        assert where(torch.zeros(3).copy_(x)) == CPU
