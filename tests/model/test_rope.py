"""Rotary embeddings whose angles depend on the length of the text, against `generate`."""

from pathlib import Path

import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from ..support.lockstep import install_lockstep
from ..support.models import END, generate, make_model, save_model_directory
from ..support.steps import token_of

LIMIT = 24
STEPS = 12

LONGROPE = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 4.0, 6.0, 8.0],
        "factor": 8.0,
        "original_max_position_embeddings": LIMIT,
    },
}
DYNAMIC = {
    "max_position_embeddings": LIMIT,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
KINDS = {
    # Reads all again past the limit.
    "phi3": LONGROPE | {"original_max_position_embeddings": LIMIT},
    # Goes on with the keys that it has.
    "llama": LONGROPE,
    "qwen2": DYNAMIC,
    "granite": DYNAMIC,
}
LENGTHS = pytest.mark.parametrize("length", [LIMIT - 20, LIMIT - 4, LIMIT, LIMIT + 1, LIMIT + 9])
EVERY_KIND = pytest.mark.parametrize("family", KINDS)


def make_lockstep(model: PreTrainedModel, rows: int = 3) -> Lockstep:
    group = WeightGroup(model, find_anatomy(model))
    return install_lockstep([(group, Dropped())] * rows)


def decode(lockstep: Lockstep, z: Tensor, steps: int) -> tuple[list[int], list[Tensor], Tensor]:
    """The greedy tokens of row 0, their logits, and the logits after them."""
    tokens, logits = [], []
    for _ in range(steps):
        tokens.append(int(z[0].argmax()))
        logits.append(z[0])
        z = lockstep.advance(torch.tensor(tokens[-1:]).expand(lockstep.row_count, 1)).z
    return tokens, logits, z


def prompt_of(length: int) -> Tensor:
    return torch.arange(3, 3 + length)[None]


def generated(model: PreTrainedModel, prompt: Tensor) -> tuple[list[int], Tensor]:
    model.generation_config = GenerationConfig(
        max_new_tokens=STEPS,
        pad_token_id=END,
        return_dict_in_generate=True,
        output_logits=True,
    )
    out = generate(model, prompt)
    return out.sequences[0, prompt.shape[1] :].tolist(), torch.cat(out.logits)


@EVERY_KIND
@LENGTHS
def test_a_lane_decodes_as_generate(
    family: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunetui.engine.decode.lockstep.PREFILL_CHUNK", 8)
    prompt = prompt_of(length)
    tokens, logits = generated(make_model(family, **KINDS[family]), prompt)
    lockstep = make_lockstep(make_model(family, **KINDS[family]))
    ours, z, _ = decode(lockstep, lockstep.prefill(prompt.repeat(3, 1)).z, STEPS)
    torch.testing.assert_close(torch.stack(z), logits, rtol=1e-4, atol=1e-4)
    assert ours == tokens


@EVERY_KIND
@LENGTHS
def test_nothing_of_a_longer_text_before_is_left(family: str, length: int) -> None:
    """Angles after another, longer prompt, and after steps that were taken back."""
    prompt = prompt_of(length).repeat(3, 1)
    lockstep = make_lockstep(make_model(family, **KINDS[family]))
    tokens, logits, _ = decode(lockstep, lockstep.prefill(prompt).z, STEPS)
    decode(lockstep, lockstep.prefill(prompt_of(3 * LIMIT).repeat(3, 1)).z, 2)
    again = decode(lockstep, lockstep.prefill(prompt).z, STEPS)
    assert again[0] == tokens
    torch.testing.assert_close(torch.stack(again[1]), torch.stack(logits), rtol=0, atol=0)
    for back in (1, 4, 8):
        left = STEPS - back
        if lockstep.crop(length + left - 1):
            z = lockstep.advance(torch.tensor(tokens[left - 1 : left]).expand(3, 1)).z
        else:
            _, _, z = decode(lockstep, lockstep.prefill(prompt).z, left)
        rest = decode(lockstep, z, back)
        assert rest[0] == tokens[left:]
        torch.testing.assert_close(torch.stack(rest[1]), torch.stack(logits[left:]))


@EVERY_KIND
def test_looking_back_changes_nothing(family: str) -> None:
    prompt = prompt_of(LIMIT - 4)
    tokens, logits = generated(make_model(family, **KINDS[family]), prompt)
    lockstep = make_lockstep(make_model(family, **KINDS[family]))
    done, _, z = decode(lockstep, lockstep.prefill(prompt.repeat(3, 1)).z, 8)
    for step in (2, 6):
        token = torch.tensor(done[step - 1 : step]).expand(3, 1)
        seen = lockstep.advance_from(LIMIT - 4 + step - 1, token)
        if seen is not None:
            torch.testing.assert_close(seen.z[0], logits[step], rtol=1e-4, atol=1e-4)
    ours, _, _ = decode(lockstep, z, STEPS - 8)
    assert done + ours == tokens


def test_steps_are_read_again_one_by_one(tmp_path: Path) -> None:
    """Each step has the angles of its own length, and a sliding window must be read again."""
    directory = save_model_directory(
        tmp_path / "tiny",
        "qwen2",
        **LONGROPE,
        use_sliding_window=True,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    options = Options(
        model=str(directory),
        variants=("control",),
        prompt="x" * (LIMIT - 4),
        raw=True,
        max_new_tokens=STEPS,
        ignore_eos=True,
    )
    session = open_session(options, None, lambda *_: None)
    while session.finished is None:
        session.step()
    first = list(session.trace.steps)
    session.rewind(9)
    while session.finished is None:
        session.step()
    for before, after in zip(first, session.trace.steps, strict=True):
        ours, theirs = token_of(after), token_of(before)
        assert ours.token == theirs.token
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
    session.close()
