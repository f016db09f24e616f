"""Lanes on a GPU against stock transformers there, and the graph against the eager step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prunetui.engine.trace.vector_file import vectors_path

from ..support.models import greedy_tokens, zero_output
from ..support.steps import decode_all, lane_tokens
from .sessions import STEPS, open_tiny, stock_model, without_cost

FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_baseline_writes_what_generate_writes(folders, family: str, device: str) -> None:
    with open_tiny(folders[family], device) as session:
        tokens = lane_tokens(decode_all(session))
        prompt = torch.tensor([session.trace.header.prompt.tokens], device=device)
        assert session.lanes.models[0].group.model.device.type == device
    assert tokens == greedy_tokens(stock_model(folders[family], device), prompt, STEPS)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_gated_lane_writes_what_zeroed_projections_write(
    folders, family: str, device: str
) -> None:
    with open_tiny(folders[family], device) as session:
        steps = decode_all(session)
        prompt = torch.tensor([session.trace.header.prompt.tokens], device=device)
    dropped = {1: [(1, "attn")], 2: [(0, "mlp"), (2, "mlp")]}
    for lane, sublayers in dropped.items():
        model = stock_model(folders[family], device)
        for layer, kind in sublayers:
            zero_output(model, layer, kind)
        assert lane_tokens(steps, lane) == greedy_tokens(model, prompt, STEPS)
        assert lane_tokens(steps, lane) != lane_tokens(steps, 0)


def test_a_variant_of_other_weights_decodes_beside_the_baseline(folders, device: str) -> None:
    variants = ("magnitude:0.5", "drop:attn=[1]", "magnitude:0.5+drop:mlp=[1]")
    with open_tiny(folders["llama"], device, variants=variants) as session:
        steps = decode_all(session)
        groups = [lane.group for lane in session.lanes.models]
        prompt = torch.tensor([session.trace.header.prompt.tokens], device=device)
    assert groups[0] is groups[2]
    assert groups[1] is groups[3]
    baseline, pruned = (group.model for group in groups[:2])
    projection = pruned.get_parameter("model.layers.1.mlp.down_proj.weight")
    assert projection.device.type == device
    assert (projection == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert lane_tokens(steps, 0) == greedy_tokens(baseline, prompt, STEPS)
    assert lane_tokens(steps, 1) == greedy_tokens(pruned, prompt, STEPS)
    zero_output(pruned, 1, "mlp")
    assert lane_tokens(steps, 3) == greedy_tokens(pruned, prompt, STEPS)


SESSIONS: dict[str, dict[str, Any]] = {
    "free": {},
    "both": {"context": "both"},
    "forced": {"context": "forced"},
    "sampled": {"temperature": 0.8, "seed": 3},
    "16 bits": {"dtype": "bfloat16"},
    "other weights": {"variants": ("magnitude:0.5", "drop:attn=[1]")},
    "one row": {"variants": ()},
}


@pytest.mark.parametrize(
    ("family", "kind"),
    [*(("llama", kind) for kind in SESSIONS), ("gemma3_text", "both"), ("gpt2", "other weights")],
)
def test_graph_and_eager_agree_in_every_bit(
    folders, family: str, kind: str, device: str, tmp_path: Path
) -> None:
    found = []
    for graphs in (True, False):
        path = tmp_path / f"{graphs}.trace.jsonl"
        options = SESSIONS[kind] | {"graphs": graphs, "keep": ("h", "z")}
        with open_tiny(folders[family], device, path, **options) as session:
            steps = without_cost(decode_all(session))
            assert session.lanes.lockstep.static
            assert session.lanes.lockstep.refusal is None
        found.append((steps, *(vectors_path(path, space).read_bytes() for space in ("h", "z"))))
    assert found[0] == found[1]
