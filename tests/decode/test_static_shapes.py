"""A static step of real models on the fake device: what it launches, reads and copies, and whether
a CUDA graph can replay it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.decode.static_attention import MaskedAttention, VarlenAttention
from prunetui.engine.decode.static_steps import StaticSteps
from prunetui.engine.measure.step_reduction import StepReduction, StepRequest
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.fused_weights import fuse_weights
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.trace.records import Sampling
from transformers import PretrainedConfig

from ..support.device_calls import DeviceCalls, replay_differences
from ..support.fake_device import fake_device, make_fake_group, needs_fake_device
from ..support.models import FAMILIES, make_model
from ..support.real_shapes import REAL_SHAPES, with_layers

pytestmark = needs_fake_device

FOUR, EIGHT = frozenset(range(20, 24)), frozenset(range(20, 28))
LANES = [
    *(Dropped(), Dropped(FOUR), Dropped(EIGHT), Dropped(mlp=EIGHT), Dropped(EIGHT, EIGHT)),
    *(Dropped(EIGHT, FOUR), Dropped(FOUR, EIGHT), Dropped(mlp=FOUR), Dropped(FOUR, FOUR)),
]
"""What nine rows drop: nothing, `drop:attn=4`, `drop:attn=8`, `drop:mlp=8` and some of each."""


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[DeviceCalls]:
    """Records of what a CUDA graph would hold, one for each static step."""
    records: list[DeviceCalls] = []
    run: Callable[..., Outputs] = StaticSteps._run  # noqa: SLF001

    def recording(*args: object) -> Outputs:
        with DeviceCalls() as calls:
            outputs = run(*args)
        records.append(calls)
        return outputs

    monkeypatch.setattr(StaticSteps, "_run", recording)
    return records


@pytest.mark.parametrize(
    ("config", "attention", "temperature"),
    [
        (REAL_SHAPES["Mistral-7B-v0.3"], VarlenAttention, 0.0),
        pytest.param(*(REAL_SHAPES["Llama-3.1-8B"], VarlenAttention, 0.8), marks=pytest.mark.slow),
        pytest.param(*(REAL_SHAPES["Qwen3-8B"], VarlenAttention, 0.0), marks=pytest.mark.slow),
        (REAL_SHAPES["Gemma-3-4b"], VarlenAttention, 0.8),
        # A window in five of six layers.
        (with_layers(REAL_SHAPES["Gemma-3-4b"], 6), MaskedAttention, 0.0),
    ],
)
def test_a_graph_can_replay_a_step_of_a_real_model(
    config: PretrainedConfig,
    attention: type,
    temperature: float,
    captured: list[DeviceCalls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode, model = "prunetui.engine.decode", "prunetui.engine.model"
    monkeypatch.setattr(f"{decode}.static_llama.choose_attention", lambda _: attention)
    monkeypatch.setattr(f"{model}.fused_weights.is_worthwhile", lambda _: True)
    with fake_device() as device:
        group = make_fake_group(config)
        fuse_weights(group.model)
        lockstep = Lockstep([(group, dropped) for dropped in LANES], static=True)
        lockstep.install()
        outputs = lockstep.prefill(torch.zeros(9, 500, dtype=torch.int64), 16)
        sampling = Sampling(temperature, 20, 0.9, seed=0, max_new_tokens=16, ignore_eos=True)
        request = StepRequest(lanes=9, candidates=10, answers=torch.tensor([1, 2]))
        reduction = StepReduction(sampling, request, device)
        reduction.draw_noise(0, outputs.z.shape[-1])
        chosen = reduction(outputs).chosen
        outputs = lockstep.advance(chosen[:, None], reduction, 1)
        with DeviceCalls() as whole:
            lockstep.advance(outputs.reduced.chosen[:, None], reduction, 2)
    assert whole.copies == whole.fetches == []
    first, second = captured
    assert replay_differences(first, second) == []
    of_step, of_reduction = (
        Counter(call.name for call in second.calls if ("/measure/" in call.line) is reduces)
        for reduces in (False, True)
    )
    assert of_step.total() <= 24 * len(group.anatomy.layers) + 21, of_step
    # Where tokens are sampled, sorting them takes more.
    assert of_reduction.total() <= 60 or temperature, of_reduction


QUICK = ("gpt2", "gemma2", "mixtral")
REFUSED = {"opt", "mpt", "falcon", "lfm2"}
"""Families whose forward reads the device on the host, copies to it or keeps more than a position's
keys and values."""


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
        for family in sorted(FAMILIES.keys() - REFUSED)
    ],
)
def test_a_graph_can_replay_a_step_of_a_family(family: str, captured: list[DeviceCalls]) -> None:
    model: Any = make_model(family).bfloat16()
    anatomy = find_anatomy(model)
    with fake_device() as device:
        group = WeightGroup(model.to(device), anatomy)
        lanes = [(group, Dropped()), (group, Dropped(frozenset({1}), frozenset({2})))]
        lockstep = Lockstep(lanes, static=True)
        lockstep.install()
        lockstep.prefill(torch.zeros(2, 12, dtype=torch.int64), 8)
        tokens = torch.zeros(2, 1, dtype=torch.int64, device=device)
        lockstep.advance(tokens)
        with DeviceCalls() as whole:
            lockstep.advance(tokens)
    assert whole.copies == whole.fetches == []
    first, second = captured
    assert len(second.calls) > 100
    assert replay_differences(first, second) == []
