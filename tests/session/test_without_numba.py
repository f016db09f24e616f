"""Sessions that import no compiler: where there is none, and where nothing is compiled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ..support.models import (
    greedy_tokens,
    make_model,
    make_tokenizer,
    save_model_directory,
    zero_output,
)

SESSION = """
import json, sys
{first}
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session

options = Options(
    model={model!r},
    variants=("drop:attn=[1]", "drop:mlp=[2]"),
    dtype={dtype!r},
    context="both",
    prompt="What is it?",
    raw=True,
    max_new_tokens=6,
    ignore_eos=True,
)
session = open_session(options, None, lambda *_: None)
while session.finished is None:
    session.step()
session.close()
steps = session.trace.steps
kernels = "prunetui.engine.cpu.kernels"
compiled = ("numba", "llvmlite", kernels)
print(json.dumps({{
    "tokens": [[step.lanes[lane].token for step in steps] for lane in range(3)],
    "kl": [drift.kl for step in steps for drift in [*step.drift, *(step.local or ())]],
    "compiled": [name for name in compiled if name in sys.modules],
}}))
"""
"""The tokens of each lane, and what was imported to compile them."""


def run(model: Path, dtype: str, first: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SESSION.format(model=str(model), dtype=dtype, first=first)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def generated(*dropped: tuple[int, str]) -> list[int]:
    """Tokens of the stock model whose sublayers write zeros."""
    model = make_model("llama")
    for layer, kind in dropped:
        zero_output(model, layer, kind)
    prompt = make_tokenizer()("What is it?", return_tensors="pt")["input_ids"]
    return greedy_tokens(model, prompt, 6)


@pytest.mark.slow
def test_a_session_without_numba_decodes_what_stock_models_do(tmp_path: Path) -> None:
    model = save_model_directory(tmp_path / "tiny")
    session = run(model, "float32", "import tests.support.without_numba")
    assert session["compiled"] == []
    assert session["tokens"] == [generated(), generated((1, "attn")), generated((2, "mlp"))]
    assert len(session["kl"]) == 6 * 2 * 2
    assert min(session["kl"]) > 0


@pytest.mark.slow
def test_a_session_that_compiles_nothing_imports_no_compiler(tmp_path: Path) -> None:
    """Another dtype than the kernels read, as on another device."""
    session = run(save_model_directory(tmp_path / "tiny"), "float16")
    assert session["compiled"] == []
    assert torch.tensor(session["kl"]).isfinite().all()
