"""Two GPUs: a session on the second, and a model spread over both."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ..support.models import save_model_directory
from ..support.steps import decode_all, lane_tokens
from .sessions import open_tiny, without_cost

MIXED = ("drop:attn=[1]", "magnitude:0.5")


@pytest.mark.parametrize("graphs", [True, False])
def test_a_session_stays_on_its_device(folders, two_devices: tuple[str, str], graphs: bool) -> None:
    first, second = two_devices
    with open_tiny(folders["llama"], first, variants=MIXED, graphs=graphs) as session:
        expected = without_cost(decode_all(session))
    allocated = torch.cuda.memory_allocated(0)
    with open_tiny(folders["llama"], second, variants=MIXED, graphs=graphs) as session:
        assert str(session.lanes.models[0].group.model.device) == second
        assert without_cost(decode_all(session)) == expected
        assert torch.cuda.memory_allocated(0) <= allocated


def test_a_model_spread_over_both_writes_the_same(
    two_devices: tuple[str, str], tmp_path: Path
) -> None:
    first, second = two_devices
    folder = save_model_directory(tmp_path / "deep", num_hidden_layers=16)
    with open_tiny(folder, first, variants=MIXED) as session:
        expected = decode_all(session)
    spread: dict[str, Any] = {"device_map": "auto"} if second != first else {}
    with open_tiny(folder, first, variants=MIXED, **spread) as session:
        places = {str(p.device) for p in session.lanes.models[0].group.model.parameters()}
        assert places == {first, second}
        steps = decode_all(session)
    for lane in range(3):
        assert lane_tokens(steps, lane) == lane_tokens(expected, lane)
