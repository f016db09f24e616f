"""What a session holds in memory."""

import sys
from pathlib import Path

import pytest
import torch
from prunetui.engine.loading import load
from prunetui.engine.options import Options
from prunetui.engine.packing import PackedLinears

from .models import save_model_directory


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps")
@pytest.mark.parametrize("tied", [True, False])
def test_packed_weights_do_not_keep_their_file_in_memory(tmp_path: Path, tied: bool) -> None:
    source = save_model_directory(tmp_path / "model", tie_word_embeddings=tied)
    model = load(Options(model=str(source)), lambda *_: None).model
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    file = str(source / "model.safetensors")
    assert file in Path("/proc/self/maps").read_text()
    packed = PackedLinears({model: 1})
    assert file not in Path("/proc/self/maps").read_text()
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied
    packed.remove()
    assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
