"""Every family that transformers can build tiny: decoded as `generate` does, or refused.

A tiny random model is saved and opened as a user's would be. Its prompt is longer than any window,
and the baseline's tokens, its log probabilities and the drift of two dropped sublayers are held
against the stock model: against `generate`, and against forward passes without a cache.
"""

import inspect
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from prunetui.engine.decode.kv_cache import TokenLayer, new_cache
from prunetui.engine.errors import UserError
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.options import Options
from prunetui.engine.session.session import Session, open_session
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from ..support.families import DECODES, FAMILIES, NOT_BUILT, REFUSED, document, make_family
from ..support.models import END, generate, make_tokenizer, without_sublayers
from ..support.steps import lane_tokens, local_of, present, token_of

PROMPT = "Forty bytes, more than any window holds."
STEPS = 12
PART = 16
"""Tokens of the prompt that are read at once where a model allows it."""
VARIANTS = {
    "control": Dropped(),
    "drop:attn=[1]": Dropped(attention=frozenset({1})),
    "drop:mlp=[2]": Dropped(mlp=frozenset({2})),
}

TOLERANCE = 1e-4
"""Tolerance of log probabilities: float32 over four layers differs by 1e-5 at most."""
CHUNKED = {
    *("nemotron_h", "zamba2", "qwen3_next"),
    *("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
}
"""Families whose forward pass sums recurrences in chunks, 2e-4 apart from single steps."""
CHUNKED_TOLERANCE = 1e-3

NEW_IN_KIND = [
    *("gemma3", "gemma3n_text", "got_ocr2", "deepseek_v32", "deepseek_v4", "hy_v4", "bamba"),
    *(
        "granitemoehybrid",
        "nemotron_h",
        "qwen3_next",
        "mamba",
        "jamba",
        "rwkv",
        "bert",
        "xlnet",
        "hrm_text",
    ),
]


@pytest.fixture(autouse=True)
def _long_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read prompts in parts, and do not measure the memory's bandwidth each time."""
    monkeypatch.setattr("prunetui.engine.session.session.read_bandwidth", lambda *_: 1e9)
    monkeypatch.setattr("prunetui.engine.decode.lockstep.PREFILL_CHUNK", PART)


def outcome(family: str, place: Path) -> str:
    """Words of the tables for a family that decodes, or the sentence that refuses it."""
    make_family(family).save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    words = []
    try:
        try:
            session, drops = opened(place, [*VARIANTS]), True
        except UserError as error:
            if "does not take layer dropping" not in str(error):
                raise
            session, drops = opened(place, ["control"]), False
        while session.finished is None:
            session.step()
    except UserError as error:
        return str(error)
    decoded = every_token(session)
    session.rewind(STEPS // 2)
    while session.finished is None:
        session.step()
    assert every_token(session) == decoded
    if drops:
        words.append("dropping")
    if reads_layers(session):
        words.append("lens")
    session.close()
    stock = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    check_numbers(stock, session, family)
    if isinstance(new_cache(stock).layers[0], TokenLayer):
        words.append("reread")
    return " ".join(words)


def opened(place: Path, variants: list[str]) -> Session:
    options = Options(
        model=str(place),
        variants=tuple(variants),
        prompt=PROMPT,
        raw=True,
        context="both",
        dtype="float32",
        max_new_tokens=STEPS,
        ignore_eos=True,
    )
    return open_session(options, None, lambda *_: None)


def every_token(session: Session) -> list[list[int]]:
    return [[token.token for token in step.lanes if token] for step in session.trace.steps]


def reads_layers(session: Session) -> bool:
    try:
        session.read(STEPS - 1)
    except UserError:
        return False
    return True


@torch.no_grad()
def check_numbers(stock: PreTrainedModel, session: Session, family: str) -> None:
    steps, prompt = session.trace.steps, session.trace.header.prompt.tokens
    assert len(prompt) == len(PROMPT)
    tokens = lane_tokens(steps)
    ours = torch.tensor([token_of(step).logprob for step in steps], dtype=torch.float64)
    theirs, generated = greedy(stock, prompt)
    assert tokens == theirs
    chosen = generated.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(ours, chosen, rtol=0, atol=TOLERANCE)
    tolerance = CHUNKED_TOLERANCE if family in CHUNKED else TOLERANCE
    logp = log_probs(stock, prompt + tokens, len(prompt))
    torch.testing.assert_close(generated, logp, rtol=0, atol=tolerance)
    control = max(present(local_of(step, 1).kl) for step in steps)
    assert 0 <= control < 1e-9
    anatomy = find_anatomy(stock)
    dropping = list(VARIANTS.values())[1 : len(steps[0].drift)]
    for lane, gates in enumerate(dropping, start=2):
        with without_sublayers(anatomy, gates):
            logq = log_probs(stock, prompt + tokens, len(prompt))
        kl = (logp.exp() * (logp - logq)).sum(dim=-1)
        assert kl.max() > 1e-4, "what was dropped does nothing"
        mine = torch.tensor([local_of(step, lane).kl for step in steps], dtype=torch.float64)
        torch.testing.assert_close(mine, kl, rtol=1e-4, atol=tolerance / 10)


def greedy(stock: PreTrainedModel, prompt: list[int]) -> tuple[list[int], Tensor]:
    """Greedy tokens and log probabilities, float64 [steps, vocabulary], that a step chose from."""
    stock.generation_config = GenerationConfig(
        max_new_tokens=STEPS,
        pad_token_id=END,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = torch.tensor([prompt])
    out = generate(stock, tokens)
    return out.sequences[0, len(prompt) :].tolist(), torch.cat(out.logits).double().log_softmax(-1)


def log_probs(stock: PreTrainedModel, tokens: list[int], prompt: int) -> Tensor:
    """Log probabilities of one forward pass without a cache, float64 [steps, vocabulary]."""
    inputs = {"input_ids": torch.tensor([tokens])}
    takes = inspect.signature(stock.forward).parameters
    # Reformer would not pad what has positions.
    if "position_ids" in takes and stock.config.model_type != "reformer":
        inputs["position_ids"] = torch.arange(len(tokens))[None]
    z = stock(**inputs, use_cache=False).logits
    return z[0, prompt - 1 : -1].double().log_softmax(dim=-1)


def check(family: str, place: Path) -> None:
    if family in DECODES:
        assert outcome(family, place) == DECODES[family]
    else:
        assert REFUSED[family] in outcome(family, place)


@pytest.mark.parametrize("family", NEW_IN_KIND)
def test_a_family_that_is_new_in_kind(family: str, tmp_path: Path) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(DECODES | REFUSED))
def test_every_family_decodes_as_generate_or_is_refused(family: str, tmp_path: Path) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(NOT_BUILT))
def test_what_is_not_built_cannot_be(family: str) -> None:
    with pytest.raises((AttributeError, ImportError, ValueError, StrictDataclassError)):
        make_family(family)


def test_every_family_is_in_one_table() -> None:
    """Every family of the installed transformers is in one table."""
    assert sorted([*DECODES, *REFUSED, *NOT_BUILT]) == FAMILIES


def test_the_document_says_what_the_tables_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "families.md"
    assert page.read_text(encoding="utf-8") == document()
