"""Compiled steps against plain ones, through rewinds, branches and restarts."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo.utils
from prunetui.engine.decode.lockstep import STATIC_CAPACITY_STRIDE
from prunetui.engine.errors import UserError
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session

from ..support.lockstep import install_lockstep
from ..support.models import make_model, save_model_directory


def opened(directory: Path, compiled: bool, **options: object) -> Session:
    settings = {"variants": ("drop:attn=[0]", "wanda:0.5"), "prompt": "Hello", "dtype": "float32"}
    settings |= {"max_new_tokens": 6, "ignore_eos": True, "calibration_length": 16}
    return open_session(
        Options(model=str(directory), compile=compiled, **(settings | options)),  # pyright: ignore[reportArgumentType]
        None,
        lambda *_: None,
    )


def tokens(session: Session) -> list[list[int]]:
    while session.finished is None:
        session.step()
    return [[token.token for token in step.lanes if token] for step in session.trace.steps]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_tokens_are_those_of_plain_steps(tmp_path: Path) -> None:
    """Two weight groups, and a sliding window shorter than the decoded text."""
    directory = save_model_directory(
        tmp_path / "model", "gemma2", sliding_window=4, max_position_embeddings=1024
    )
    seen = []
    torch._dynamo.utils.counters.clear()
    for compiled in (False, True):
        session = opened(directory, compiled)
        runs = [tokens(session)]
        session.force(2, {1: 7})
        runs.append(tokens(session))
        # Too long for the cache that the first was compiled for.
        session.restart(prompt="word " * (STATIC_CAPACITY_STRIDE // 4))
        assert len(session.trace.header.prompt.tokens) > STATIC_CAPACITY_STRIDE
        runs.append(tokens(session))
        session.close()
        seen.append(runs)
        # Of each weight group, for either cache.
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4 * compiled
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_a_cache_may_grow_as_often_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler keeps eight programs of a function, and then refuses to make more."""
    made = partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", made)
    model = make_model("llama", max_position_embeddings=4096, num_hidden_layers=1)
    group = WeightGroup(model, find_anatomy(model))
    lockstep = install_lockstep([(group, Dropped())], compiled=True)
    plain = install_lockstep([(group, Dropped())])
    for times in range(1, 11):
        seen = []
        for decoder in (lockstep, plain):
            decoder.prefill(torch.tensor([[5, 6, 7]]), STATIC_CAPACITY_STRIDE * times)
            seen.append(decoder.advance(torch.tensor([[8]])).z.clone())
        assert torch.allclose(*seen, rtol=1e-4, atol=1e-4)
    plain.remove()
    lockstep.remove()


def test_what_cannot_be_compiled_is_said(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "model", "lfm2")
    with pytest.raises(UserError, match="lfm2 keeps more than keys and values"):
        opened(directory, True, variants=())


def test_a_device_map_is_refused(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "model")
    with pytest.raises(UserError, match="--compile takes a model on one device"):
        opened(directory, True, device_map="auto")
