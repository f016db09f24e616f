"""The fake device sees what a GPU would wait for, copy and launch."""

from collections.abc import Callable, Iterator

import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.model.dropped import Dropped
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.nn.functional import scaled_dot_product_attention

from ..support.device_calls import DeviceCalls, replay_differences
from ..support.fake_device import fake_device, make_fake_group, needs_fake_device
from ..support.real_shapes import REAL_SHAPES, with_layers

pytestmark = needs_fake_device


@pytest.fixture
def device() -> Iterator[torch.device]:
    with fake_device() as found:
        yield found


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[0, 0].item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: x.unique(),
        lambda x: 3 in x,
        lambda x: x.masked_select(x > 0),
        lambda x: torch.repeat_interleave(x[0].long()),
        lambda x: x[0].long().bincount(),
        lambda x: x.cpu().tolist(),
        lambda x: x.masked_fill(x > 1, x[0, 0]),
        lambda x: x.__setitem__(x[:, 0] > 1, x[0]),
    ],
)
def test_a_number_that_the_host_reads_is_refused(
    read: Callable[[Tensor], object], device: torch.device
) -> None:
    x = torch.ones(2, 3, device=device)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        read(x)


def test_copies_between_host_and_device_are_seen(device: torch.device) -> None:
    x, host = torch.ones(2, 3, device=device), torch.ones(2, 3)
    with DeviceCalls() as calls:
        torch.tensor([1, 2], device=device)
        torch.tensor(3, device=device)
        host.to(device)
        x.copy_(host)
        x[0] = host[0]
        x[torch.tensor([0, 1])]
        x[0, 0] = 3.0
        x[0] = 3.0
        torch.full((2,), 3, device=device)
        torch.arange(3, device=device)
        x.to(torch.float64)
        x.mul_(3).add_(torch.tensor(2.0))
    assert [copy.split(" at ")[0] for copy in calls.copies] == [
        *("aten._to_copy.default", "aten._to_copy.default", "aten._to_copy.default"),
        *("aten.copy_.default", "aten.copy_.default", "aten.index.Tensor", "aten.copy_.default"),
    ]
    assert calls.fetches == []
    with DeviceCalls() as calls:
        x.cpu()
        host.copy_(x)
    assert calls.copies == []
    assert [copy.split(" at ")[0] for copy in calls.fetches] == [
        "aten._to_copy.default",
        "aten.copy_.default",
    ]


def test_views_and_the_host_launch_nothing(device: torch.device) -> None:
    x, host = torch.ones(2, 6, device=device), torch.ones(2, 6)
    with DeviceCalls() as calls:
        first, second = x.view(2, 3, 2).transpose(1, 2)[:, 0].expand(2, 3).split(1)
        x.new_empty(3).unsqueeze_(0)
        host.add_(host)
        x.reshape(12).unflatten(0, (3, 4)).flatten()
        x.contiguous()
        x.to(device)
    assert calls.calls == []
    with DeviceCalls() as calls:
        first.add_(second)
        torch.nn.functional.linear(x[None], x)
        x.t().contiguous()
    assert calls.names == {"aten.add_.Tensor": 1, "aten.mm.default": 1, "aten.clone.default": 1}


def test_the_device_attends_as_cuda_does(device: torch.device) -> None:
    q, k = torch.empty(2, 4, 3, 8, device=device), torch.empty(2, 4, 32, 8, device=device)
    places = torch.arange(32, device=device) <= 5
    with DeviceCalls() as calls:
        scaled_dot_product_attention(q, k, k)
        added = torch.zeros(32, device=device).expand(2, 4, 3, 32)
        out = scaled_dot_product_attention(q, k, k, added)
    name = "aten.scaled_dot_product_attention.default"
    assert calls.names == {name: 2, "aten.zeros.default": 1}
    # Queries before heads in memory.
    assert out.stride() == (96, 8, 32, 1)
    # A mask of bool is made anew in every call, an odd one copied; heads are repeated.
    with DeviceCalls() as calls:
        scaled_dot_product_attention(q, k, k, places)
    assert calls.names["aten.where.self"] == 1
    with DeviceCalls() as calls:
        scaled_dot_product_attention(q, k[:, :, :9], k[:, :, :9], added[0, 0, :, :9].clone())
    assert calls.names["aten.constant_pad_nd.default"] == 1
    with DeviceCalls() as calls:
        scaled_dot_product_attention(q, k[:, :2], k[:, :2], added, enable_gqa=True)
    assert calls.names["aten.bmm.default"] == 2


def test_a_step_that_grows_its_cache_cannot_be_replayed(device: torch.device) -> None:
    group = make_fake_group(with_layers(REAL_SHAPES["Mistral-7B-v0.3"], 4))
    lockstep = Lockstep([(group, Dropped())] * 9)
    lockstep.install()
    outputs = lockstep.prefill(torch.zeros(9, 500, dtype=torch.int64), 2)
    assert (*outputs.z.shape,) == (9, 32768)
    tokens = torch.zeros(9, 1, dtype=torch.int64, device=device)
    with DeviceCalls() as first:
        lockstep.advance(tokens)
    with DeviceCalls() as second:
        lockstep.advance(tokens)
    assert len(first.calls) == 23 * 4 + 18
    assert first.names["aten.mm.default"] == 7 * 4 + 1
    assert first.copies == first.fetches == []
    # The position, and per layer keys, values and how many are attended to.
    differences = replay_differences(first, second)
    assert len(differences) == 1 + 3 * 4
    assert "aten.full.default (engine/model/llama.py:" in differences[0]
    assert differences[0].endswith("500, then 501")


def test_a_replay_needs_the_same_calls_numbers_and_memory(device: torch.device) -> None:
    weight, position = torch.ones(4, 4, device=device), torch.zeros(1, device=device)
    other = weight.clone()

    def record(step: Callable[[], object]) -> DeviceCalls:
        with DeviceCalls() as calls:
            step()
        return calls

    def step(number: float = 2.0) -> Tensor:
        return (weight @ weight + 1).mul_(position) * torch.tensor(number)

    first = record(step)
    assert replay_differences(first, record(step)) == []
    for changed, difference in [
        (lambda: (weight @ other + 1).mul_(position), "call 0: aten.mm.default"),
        (lambda: (weight @ weight.T + 1).mul_(position), "strides [1, 4]"),
        (lambda: (weight @ weight + 2).mul_(position), "1, then 2"),
        (lambda: (weight @ weight[:, :3] + 1).mul_(position), "float32[4, 3]"),
        (lambda: (weight @ weight - 1).mul_(position), "call 1: aten.add.Tensor"),
        (lambda: step(3.0), "float32[] 2.0 on the host, then float32[] 3.0 on the host"),
        (lambda: step().add_(1), "4 calls, then 5"),
    ]:
        differences = replay_differences(first, record(changed))
        assert any(difference in line for line in differences)


def test_no_other_test_notices_the_device(device: torch.device) -> None:
    assert torch.ones(1, device=device).device == device
    assert not torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator(check_available=True) is None
    assert torch.accelerator.device_count() == 0
    assert not torch.cuda.is_available()
    assert torch.ones(2).sum().item() == 2
