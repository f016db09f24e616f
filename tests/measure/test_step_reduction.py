"""A step's reduction in few launches, without a wait or a copy, and its fetch in one transfer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from prunetui.engine.measure import reductions
from prunetui.engine.measure.drift import MEASURES
from prunetui.engine.measure.step_reduction import Reduced, StepReduction, StepRequest
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.trace.records import Sampling
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..support.devices import SECOND, Devices, put
from ..support.measures import numbers_and_tokens

META = torch.device("meta")
LANES, ROWS = 3, 5
ANSWERS = torch.tensor([4, 2])


def sampling(temperature: float) -> Sampling:
    return Sampling(
        temperature=temperature, top_k=0, top_p=1.0, seed=3, max_new_tokens=1, ignore_eos=False
    )


def example(rows: int = ROWS, vocabulary: int = 700) -> Outputs:
    torch.manual_seed(rows)
    streams = torch.randn(7, rows, 12)
    return Outputs(streams[-1], torch.randn(rows, vocabulary) * 3, streams)


@pytest.fixture(autouse=True)
def _by_torch(monkeypatch) -> None:
    monkeypatch.setattr(reductions, "backend_for", lambda *_: None)


class Calls(TorchDispatchMode):
    """Mode that records the operations that make or change a tensor, and refuses other devices."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, list[torch.Size]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs, outputs = list(_tensors((args, kwargs))), list(_tensors(output))
        assert {tensor.device for tensor in inputs + outputs} <= {META}, func
        storages = {*map(_storage, inputs)}
        in_place = func.overloadpacket.__name__.endswith("_")
        if in_place or any(_storage(tensor) not in storages for tensor in outputs):
            self.made.append((str(func), [tensor.shape for tensor in inputs + outputs]))
        return output


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _storage(tensor: Tensor) -> int:
    return StorageWeakRef(tensor.untyped_storage()).cdata


@pytest.mark.parametrize("rows", [9, 17])
@pytest.mark.parametrize("vocabulary", [32_000, 50_257, 128_256])
def test_a_step_is_reduced_in_at_most_60_calls(rows: int, vocabulary: int) -> None:
    """On a device that has no numbers, so that a host read would raise."""
    streams = torch.empty(65, rows, 4096, dtype=torch.bfloat16, device=META)
    z = torch.empty(rows, vocabulary, dtype=torch.bfloat16, device=META)
    request = StepRequest(rows, 10, torch.tensor([1, 2, 3, 4]))
    reduction = StepReduction(sampling(0.0), request, META)
    reduction.draw_noise(0, vocabulary)
    made = []
    for _ in range(2):
        with Calls() as calls:
            assert reduction(Outputs(streams[-1], z, streams)).chosen.shape == (rows,)
        made.append(calls.made)
    assert 40 < len(made[0]) <= 60
    assert made[0] == made[1]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("forced", [{}, {1: 5, 2: 699}])
def test_what_is_packed_on_a_device_is_what_the_cpu_has(
    temperature: float, forced: dict[int, int]
) -> None:
    outputs, request = example(), StepRequest(LANES, 4, ANSWERS)
    on_cpu = StepReduction(sampling(temperature), request, torch.device("cpu"))
    on_cpu.draw_noise(6, 700)
    reduced = on_cpu(outputs, forced)
    assert reduced.packed is None
    expected = reduced.fetch()()
    with Devices() as devices:
        placed = Outputs(
            put(outputs.h, SECOND), put(outputs.z, SECOND), put(outputs.streams, SECOND)
        )
        elsewhere = StepReduction(sampling(temperature), request, SECOND)
        elsewhere.draw_noise(6, 700)
        reduced = elsewhere(placed, forced)
        pending = reduced.fetch()
        assert devices.waits == []
        found = pending()
        assert devices.waits == ["cpu"]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)
    assert found.tokens[[*forced]].tolist() == [*forced.values()]
    # What a lane would have chosen is still its most probable token.
    assert found.ranked[:, 0].tolist() == outputs.z.argmax(dim=-1).tolist()
    columns = [*found.tokens, *found.ranked[:LANES, :4].flatten(), *ANSWERS.tolist()]
    assert found.logits.tolist() == outputs.z[:, [int(column) for column in columns]].tolist()


def test_the_transfer_from_cuda_is_waited_for_by_its_event(monkeypatch) -> None:
    """The copy is queued when the fetch begins; the wait is for it and not for what follows."""
    log: list[str] = []

    class Packed:
        device = torch.device("cuda:1")

        def to(self, device: torch.device, *, non_blocking: bool) -> Tensor:
            log.append(f"copy to {device}, {non_blocking=}")
            return torch.arange(3.0, dtype=torch.float64)

    class Event:
        def record(self, stream: str) -> None:
            log.append(f"record on {stream}")

        def synchronize(self) -> None:
            log.append("synchronize")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    shapes = [(1,), (1, 1), (0,), (1, 1), (0,), (0,), (0, 2)]
    packed: Any = Packed()
    pending = Reduced(torch.empty(1), [torch.empty(shape) for shape in shapes], packed).fetch()
    started = ["copy to cpu, non_blocking=True", "record on the stream of cuda:1"]
    assert log == started
    arrays = pending()
    assert log == [*started, "synchronize"]
    assert [array.shape for array in arrays] == shapes
    assert (arrays.tokens.item(), arrays.ranked.item(), arrays.highest.item()) == (0, 1, 2)


def test_noise_stays_where_it_lies_and_is_that_of_the_step() -> None:
    reduction = StepReduction(sampling(1.0), StepRequest(LANES, 2, ANSWERS), torch.device("cpu"))
    outputs, noise, chosen = example(), [], []
    for step in (4, 9, 4):
        reduction.draw_noise(step, 700)
        noise.append((reduction.noise.data_ptr(), reduction.noise.clone()))
        chosen.append(reduction(outputs).chosen)
    assert len({address for address, _ in noise}) == 1
    assert torch.equal(noise[0][1], noise[2][1])
    assert not torch.equal(noise[0][1], noise[1][1])
    expected = [(outputs.z[:LANES] + each).argmax(dim=-1) for _, each in noise]
    assert all(map(torch.equal, chosen, expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [5, 1003, 70_000])
def test_a_lane_equal_to_the_baseline_does_not_drift_at_all(
    vocabulary: int, dtype: torch.dtype
) -> None:
    outputs = example(9, vocabulary)
    for tensor in (outputs.h[None], outputs.z[None], outputs.streams):
        tensor[:, 7] = tensor[:, 0]
    outputs = Outputs(outputs.h.to(dtype), outputs.z.to(dtype), outputs.streams.to(dtype))
    numbers, _ = numbers_and_tokens(outputs, sampling(0.7), 0, StepRequest(9, 3, ANSWERS))
    equal = numbers.drift[6]
    ones = ("cos_h", "cos_z", "cos_p", "cos_z_centred")
    assert [equal[name] for name in ones] == [1.0] * 4
    zeros = [name for name in MEASURES if name not in (*ones, "logq")]
    assert [equal[name] for name in zeros] == [0.0] * len(zeros)
    assert equal["logq"] == numbers.logprobs[0]
    assert numbers.layers[6] == [1.0] * 6
    assert numbers.drift[5]["kl"] > 0


def test_a_lane_does_not_depend_on_the_others() -> None:
    request = StepRequest(9, 3, ANSWERS)
    found = []
    for scale in (1.0, 50.0):
        outputs = example(9, 70_001)
        for tensor in (outputs.h[None], outputs.z[None], outputs.streams):
            tensor[:, [1, 2, 3, 5, 8]] *= scale
        numbers, _ = numbers_and_tokens(outputs, sampling(0.0), 0, request)
        found.append((numbers.drift[3], numbers.entropies[4], numbers.top_probs[4][12:15]))
    assert found[0] == found[1]
