"""The logit lens and the layerwise transitions against float64 on tiny models."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from prunetui.engine.errors import UserError
from prunetui.engine.measure import logit_lens
from prunetui.engine.measure.logit_lens import (
    COPIES,
    check_lens,
    lens_logits,
    read_lens,
    transitions,
)
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.outputs import Outputs
from prunetui.engine.model.residual_stream import StreamHooks
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace import records
from prunetui.engine.trace.file import read_trace
from prunetui.engine.trace.trace import Trace
from torch import nn

from ..support.models import make_model, save_model_directory
from ..support.references import cos, softmax
from ..support.steps import present, token_of, whole

TOKENS = torch.arange(1, 7)[None]
SCALED: dict[str, dict[str, object]] = {
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 5.0},
}
WITH_NORM = [
    "llama",
    "gpt2",
    "gemma3_text",
    "olmo2",
    "falcon",
    "gpt_neox",
    "bloom",
    *SCALED,
]


def read(family: str):
    """The model, its anatomy, the last position's stream points and the model's own z."""
    model = make_model(family, seed=0, **SCALED.get(family, {}))
    anatomy = find_anatomy(model)
    kept: dict[int, torch.Tensor] = {}
    hooks = StreamHooks(anatomy, lambda point, stream: kept.update({point: stream[0, -1].clone()}))
    with hooks, torch.inference_mode():
        z = model(input_ids=TOKENS).logits[0, -1]
    return model, anatomy, torch.stack([*kept.values()]), z


@pytest.mark.parametrize("family", WITH_NORM)
def test_the_lens_of_the_last_point_is_the_models_own_z(family: str) -> None:
    model, anatomy, points, z = read(family)
    assert len(points) == 2 * len(anatomy.layers) + 1
    assert torch.allclose(lens_logits(model, anatomy, points)[-1], z, rtol=1e-5, atol=1e-6)


def test_the_raw_lens_is_the_head_alone() -> None:
    model, anatomy, points, _ = read("llama")
    expected = points.double() @ weight_of(anatomy.head).T
    assert torch.allclose(
        lens_logits(model, anatomy, points, raw=True).double(), expected, atol=1e-5
    )


def weight_of(module: nn.Module | None) -> torch.Tensor:
    return present(module).get_parameter("weight").double()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_transitions_equal_their_formulas(temperature: float) -> None:
    model, anatomy, points, _ = read("llama")
    changes = transitions(points, lens_logits(model, anatomy, points), temperature)
    assert changes.shape == (8, 4)
    x = points.double().numpy()
    root = np.sqrt((x**2).mean(axis=1, keepdims=True) + model.config.rms_norm_eps)
    normed = x / root * weight_of(anatomy.norm).numpy()
    z = normed @ weight_of(anatomy.head).numpy().T
    p = [softmax(row / temperature) for row in z]
    for n, change in enumerate(changes):
        expected = {
            "cos_h": cos(x[n], x[n + 1]),
            "cos_z": cos(z[n], z[n + 1]),
            "cos_p": cos(p[n], p[n + 1]),
            "kl": p[n] @ np.log(p[n] / p[n + 1]),
        }
        found = msgspec.structs.asdict(records.Transition(*change.tolist()))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_family_that_does_more_before_its_head_is_refused() -> None:
    model, anatomy, _, _ = read("opt")
    without = replace(anatomy, norm=None)
    with pytest.raises(UserError, match="more than a norm"):
        check_lens(WeightGroup(model, without))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_reading_takes_is_bounded(temperature: float) -> None:
    """Peaks of the allocations, in logits as float64."""
    logits, points = torch.randn(17, 3, 20_000), torch.randn(17, 3, 8)
    for read in (
        lambda: transitions(points, logits, temperature),
        lambda: logit_lens.top_tokens(logits, temperature),
    ):
        with torch.profiler.profile(profile_memory=True) as profile:
            read()
        assert profile.profiler is not None
        events: list[Any] = present(profile.profiler.kineto_results).events()
        sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
        peak = max(itertools.accumulate(sizes)) / (logits.numel() * 8)
        assert 1 < peak < COPIES + 0.01


def lens_session(folder: Path, record_to: Path | None = None, **options) -> Session:
    settings = {
        "model": str(folder),
        "variants": ("drop:attn=[1]", "drop:mlp=[0,2]", "magnitude:0.5"),
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": 8,
    }
    return open_session(Options(**(settings | options)), record_to, lambda *_: None)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_directory(tmp_path_factory.mktemp("models") / "llama", "llama")


def test_every_row_of_a_session_is_read_with_its_own_lanes_drift(llama: Path) -> None:
    session = lens_session(llama, lens=True)
    step = [session.step() for _ in range(6)][-1]
    lens = step.lens
    assert lens is not None
    assert lens.local is not None
    assert (len(lens.lanes), len(lens.local)) == (4, 3)
    for lane, token in zip(whole(lens.lanes), whole(step.lanes), strict=True):
        # The last point is what the lane itself says, greedily.
        assert lane.tokens[-1] == token.token
        assert lane.probs[-1] == pytest.approx(token.prob, rel=1e-5)
        assert len(lane.tokens) == len(lane.transitions) + 1 == 9
    # A closed gate adds nothing to the stream; nor does it in the second lane.
    for read in (whole(lens.lanes), [None, *whole(lens.local)]):
        first, second = present(read[1]).transitions, present(read[2]).transitions
        for closed in (first[2], second[1], second[5]):
            assert msgspec.structs.astuple(closed) == pytest.approx((1, 1, 1, 0))
        assert present(first[3].kl) > 0
    session.close()


@pytest.mark.parametrize("most", [9, 4, 1])
def test_rows_are_read_together_and_in_parts_as_alone(llama: Path, monkeypatch, most: int) -> None:
    session = lens_session(llama, context="both")
    for _ in range(3):
        session.step()
    kept: list[tuple[Any, ...]] = []

    def spied(*arguments: Any) -> dict[int, records.LaneLens]:
        kept.append(arguments)
        return read_lens(*arguments)

    def counted(_model: Any, _anatomy: Any, stream: torch.Tensor, **raw: bool) -> torch.Tensor:
        products.append(len(stream))
        return lens_logits(_model, _anatomy, stream, **raw)

    products: list[int] = []
    fractions: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr("prunetui.engine.session.step_builder.read_lens", spied)
        patch.setattr(logit_lens, "lens_logits", counted)
        patch.setattr(logit_lens, "_points_at_once", lambda _: most)
        patch.setattr(session, "_progress", lambda _, fraction: fractions.append(fraction))
        session.read(2)
    ((rows, outputs, *_),) = kept
    assert [*rows.values()] == [[0, 1, 2, 4, 5], [3, 6]]
    # The normed and the raw lens of all points of each weight group's rows.
    sizes = [len(range(9)[first : first + most]) for first in range(0, 9, most)]
    assert products == [count * size for count in (5, 2) for size in sizes for _ in range(2)]
    lens_fractions = [fraction for fraction in fractions if fraction is not None]
    assert lens_fractions[-2 * len(sizes) :] == pytest.approx(
        [
            (done + count * most * part / 9) / 7
            for done, count in ((0, 5), (5, 2))
            for part in range(len(sizes))
        ]
    )
    lens = present(session.trace.steps[2].lens)
    for group, members in rows.items():
        for row in members:
            points = outputs.streams[:, row]
            read = present([*lens.lanes, *present(lens.local)][row])
            for raw, tokens, probs in (
                (False, read.tokens, read.probs),
                (True, read.raw_tokens, read.raw_probs),
            ):
                p = lens_logits(group.model, group.anatomy, points, raw=raw).double().softmax(-1)
                assert tokens == p.argmax(-1).tolist()
                assert probs == pytest.approx(p.max(-1).values.tolist(), rel=1e-5)
            z = lens_logits(group.model, group.anatomy, points)
            changes = [msgspec.structs.astuple(change) for change in read.transitions]
            expected = transitions(points, z, 1.0)
            assert torch.tensor(changes, dtype=torch.float64).allclose(expected, atol=1e-6)
    session.close()


@pytest.mark.parametrize("context", ["free", "both"])
def test_a_step_read_later_is_as_if_read_at_once(llama: Path, tmp_path: Path, context) -> None:
    at_once = lens_session(llama, lens=True, context=context)
    later = lens_session(llama, tmp_path / "a.trace.jsonl", context=context)
    expected = [at_once.step() for _ in range(8)]
    steps = [later.step() for _ in range(5)]
    for number in (2, 4, 0):
        later.read(number)
    steps = [*steps, *[later.step() for _ in range(3)]]
    for number in (0, 2, 4):
        read, once = present(later.trace.steps[number].lens), present(expected[number].lens)
        assert (read.local is None) == (context == "free")
        for mine, theirs in zip(whole(read.lanes), whole(once.lanes), strict=True):
            assert (mine.tokens, mine.raw_tokens) == (theirs.tokens, theirs.raw_tokens)
            assert mine.probs == pytest.approx(theirs.probs, rel=1e-4)
            assert [t.kl for t in mine.transitions] == pytest.approx(
                [t.kl for t in theirs.transitions], rel=1e-3, abs=1e-9
            )
    for ours, theirs in zip(steps, expected, strict=True):
        assert [token.token for token in whole(ours.lanes)] == [
            token.token for token in whole(theirs.lanes)
        ]
    at_once.close()
    later.close()
    recorded = read_trace(tmp_path / "a.trace.jsonl")
    assert recorded.steps == later.trace.steps
    assert [step.step for step in recorded.steps if step.lens] == [0, 2, 4]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_decoded_does_not_depend_on_what_was_read_before(llama: Path, dtype: str) -> None:
    """To the last bit."""
    looking, plain = (lens_session(llama, dtype=dtype, max_new_tokens=40) for _ in range(2))
    expected = [plain.step() for _ in range(40)]
    for number in range(40):
        looking.step()
        for earlier in {0, number // 2, number}:
            looking.read(earlier)
    for ours, theirs in zip(looking.trace.steps, expected, strict=True):
        assert (ours.lanes, ours.drift, ours.layers) == (theirs.lanes, theirs.drift, theirs.layers)
    plain.close()
    looking.close()


def test_a_step_is_read_at_the_end_of_caches_that_cannot_go_back(tmp_path: Path) -> None:
    """What a recurrent layer has read once more, it could not forget."""
    model = save_model_directory(tmp_path / "lfm2", "lfm2")
    looking, plain = (lens_session(model, context="free") for _ in range(2))
    expected = [plain.step() for _ in range(8)]
    for _ in range(7):
        looking.step()
    looking.force(3, {0: 77})
    looking.switch(0)
    # The caches end behind step 2.
    looking.read(4)
    looking.step()
    last = looking.trace.steps[-1]
    for ours, theirs in zip(whole(last.lanes), whole(expected[-1].lanes), strict=True):
        assert ours.token == theirs.token
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
    plain.close()
    looking.close()


def test_a_lane_that_has_ended_is_not_read(llama: Path) -> None:
    session = lens_session(llama, variants=("control",), context="both")
    session.step()
    session.trace.steps[0] = msgspec.structs.replace(
        session.trace.steps[0],
        lanes=[
            session.trace.steps[0].lanes[0],
            msgspec.structs.replace(token_of(session.trace.steps[0], 1), ended=True),
        ],
    )
    session.step()
    session.read(1)
    lens = present(session.trace.steps[1].lens)
    assert lens.lanes[0] is not None
    assert lens.lanes[1] is None
    assert present(lens.local)[0] is not None
    session.close()


def test_a_lens_that_does_not_fit_the_header_is_damage(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = lens_session(llama, path)
    session.step()
    session.read(0)
    session.close()
    *lines, last, _ = path.read_bytes().split(b"\n")
    event = msgspec.json.decode(last)
    event["lens"]["lanes"][1]["tokens"].pop()
    path.write_bytes(b"\n".join([*lines, msgspec.json.encode(event), b""]))
    with pytest.raises(UserError, match="its lens does not fit"):
        read_trace(path)


def test_logits_that_the_lens_cannot_make_are_refused(llama: Path, monkeypatch) -> None:
    session = lens_session(llama)
    session.step()

    def scaled(rows: Any, outputs: Outputs, *more: Any) -> Any:
        """Read the lens of a family that scales its logits in a way of its own."""
        return read_lens(rows, replace(outputs, z=outputs.z * 1.5), *more)

    with monkeypatch.context() as patch:
        patch.setattr("prunetui.engine.session.step_builder.read_lens", scaled)
        with pytest.raises(UserError, match="more with its logits"):
            session.read(0)
    assert session.trace.steps[0].lens is None
    session.read(0)
    assert session.trace.steps[0].lens is not None
    session.close()


def test_branches_that_share_a_step_share_its_lens(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = lens_session(llama, path)
    for _ in range(4):
        session.step()
    session.force(2, {0: 7})
    session.read(1)
    session.read(2)
    session.close()
    for trace in (session.trace, read_trace(path)):
        assert [[step.lens is not None for step in steps] for steps in trace.branches] == [
            [False, True, False, False],
            [False, True, True],
        ]
    again = Trace(session.trace.header)
    for event in session.trace.events():
        again.apply(event)
    assert again.branches == session.trace.branches
