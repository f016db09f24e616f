"""Forms of pruned lanes as rows on a GPU, beside what prepares a session to decode."""

import pytest
import torch
from prunetui.engine.blame.pruned_lane import PrunedLane
from prunetui.engine.session.session import Session

from ..support.forms import blame_forms, kl, stock_form, stock_logits
from .sessions import open_tiny

TOKENS = [5, 17, 200, 31, 8, 99, 42, 7, 128, 64, 3, 77]
NEEDED = [4, 11]
TOLERANCE = {"float32": 1e-6, "bfloat16": 0.01}
"""KL(p‖q), in nats, of a form as a row and as a model of its own."""


def _lane(session: Session, number: int) -> PrunedLane:
    models = session.lanes.models
    return PrunedLane(models[0].group, models[number])


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float32"), ("llama", "bfloat16"), ("gemma3_text", "float32"), ("gpt2", "bfloat16")],
)
def test_each_form_is_a_stock_model_of_its_own(
    folders, family: str, dtype: str, device: str
) -> None:
    variants = ("drop:attn=[1,3]+drop:mlp=[2]", "magnitude:0.5+drop:attn=[1]")
    with open_tiny(folders[family], device, variants=variants, dtype=dtype) as session:
        session.step()
        session.lanes.lockstep.remove()
        for number in (1, 2):
            lane, model = _lane(session, number), session.lanes.models[number]
            assert {reader.shares_layers for reader in lane.readers} == {True}
            forms = blame_forms(lane)
            found = [*lane.logits(TOKENS, forms, NEEDED, lambda _: None)]
            for form, z in zip(forms, found, strict=True):
                assert z.device.type == device
                stock = stock_form(
                    session.lanes.models[0].group.model, model.group.model, model.dropped, form
                )
                expected = stock_logits(stock, TOKENS, NEEDED)
                assert kl(expected, z).abs().max().item() <= TOLERANCE[dtype]
        session.lanes.lockstep.install()
        session.step()


def test_the_memory_that_is_said_is_enough(folders, device: str) -> None:
    text = [1 + number % 200 for number in range(250)]
    with open_tiny(folders["llama"], device) as session:
        session.lanes.lockstep.remove()
        lane = _lane(session, 2)
        forms = blame_forms(lane)
        need = lane.need(forms, len(text), len(text))
        assert need.at_once == len(forms)
        # Whatever is allocated once, as the libraries' workspaces, is there before.
        for z in lane.logits(text, forms[:1], [0], lambda _: None):
            z.double().log_softmax(-1)
        on_gpu = device == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if on_gpu else 0
        for z in lane.logits(text, forms, range(len(text)), lambda _: None):
            z.double().log_softmax(-1)
        if on_gpu:
            assert torch.cuda.max_memory_allocated() - before <= need.bytes
        session.lanes.lockstep.install()
