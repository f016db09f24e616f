"""Static steps of the demo model against eager ones: tokens in float32, rounding in 16 bits."""

from typing import Any

import msgspec
import pytest
import torch
from prunetui.engine.cpu.backend import CPU, backend_for
from prunetui.engine.decode import steps
from prunetui.engine.decode.llama_step import LlamaStep
from prunetui.engine.decode.static_llama import StaticLlamaStep
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session
from prunetui.engine.variants.builder import VariantBuilder, open_builder
from prunetui.engine.variants.recipes import parse
from torch import Tensor

from ..support.lockstep import install_lockstep
from ..support.pretended_graphs import take_static_steps
from ..support.steps import decode_all, lane_tokens

pytestmark = pytest.mark.user_cache

OPTIONS = Options(variants=("drop:mlp=[12,13]",), raw=True, context="free", ignore_eos=True)


@pytest.fixture(scope="module")
def builder() -> VariantBuilder:
    return open_builder(OPTIONS, lambda *_: None)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_tokens_and_numbers_are_those_of_eager_steps(
    builder: VariantBuilder, monkeypatch, count: int
) -> None:
    """Equal tokens; probabilities and cosines within 1e-5, entropies within 1e-4 nats."""
    models, left_out = builder.build_lanes([parse("drop:mlp=[12,13]")])
    options = msgspec.structs.replace(OPTIONS, max_new_tokens=count)
    session = Session(builder, models, left_out, options, None, lambda *_: None)
    expected = decode_all(session)
    assert not session.lanes.lockstep.static
    take_static_steps(monkeypatch)
    session.set_variants(["drop:mlp=[12,13]"])
    assert session.lanes.lockstep.static
    found = decode_all(session)
    session.close()
    assert len(found) == count
    assert [lane_tokens(found, lane) for lane in (0, 1)] == [
        lane_tokens(expected, lane) for lane in (0, 1)
    ]
    for step, other in zip(found, expected, strict=True):
        for token, known in zip(step.lanes, other.lanes, strict=True):
            assert token is not None
            assert known is not None
            assert token.prob == pytest.approx(known.prob, rel=0, abs=1e-5)
            assert token.entropy == pytest.approx(known.entropy, rel=0, abs=1e-4)
        for drift, known in zip(step.drift, other.drift, strict=True):
            assert drift is not None
            assert known is not None
            for name in ("cos_h", "cos_z", "cos_p"):
                value, expected_value = getattr(drift, name), getattr(known, name)
                assert value == pytest.approx(expected_value, rel=0, abs=1e-5), name


def test_rounding_to_16_bits_is_no_worse_than_in_eager_steps(
    builder: VariantBuilder, monkeypatch
) -> None:
    """Squared error of the logits against float32's; it leaves the model in 16 bits."""
    monkeypatch.setattr(steps, "backend_for", lambda *_: None)
    group, model = builder.baseline, builder.loaded.model
    rows = [Dropped(), Dropped(frozenset({1})), Dropped(mlp=frozenset({0, 2}))]
    encoded: Any = builder.loaded.tokenizer(OPTIONS.prompt)
    text = torch.tensor(encoded["input_ids"][:28]).repeat(len(rows), 1)

    def logits(dtype: torch.dtype, kind: type) -> Tensor:
        module: Any = model
        module.to(dtype)
        # Torch's products of 16 bits are slow on many a CPU; a GPU's round as ours do.
        backend = backend_for(CPU, dtype)
        prepared = backend and backend.prepare({model: len(rows)})
        if prepared:
            prepared.install()
        lockstep = install_lockstep(
            [(group, dropped) for dropped in rows], static=kind is StaticLlamaStep
        )
        z = [lockstep.prefill(text[:, :12], 16).z.double()]
        z += [lockstep.advance(token).z.double() for token in text[:, 12:].split(1, dim=1)]
        lockstep.remove()
        if prepared:
            prepared.remove()
        return torch.stack(z)

    exact = logits(torch.float32, LlamaStep)
    eager, static = (
        (logits(torch.bfloat16, kind) - exact).square().sum().item()
        for kind in (LlamaStep, StaticLlamaStep)
    )
    assert 0 < static <= 1.25 * eager
