"""Texts of all lanes against `generate` of stock models with the stop sequences of lm-eval."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import prunetui.engine.decode.prepared_lanes as prepared_lanes
import prunetui.engine.evaluation.shared_caches as shared_caches
import pytest
import torch
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.models.utils_hf import stop_sequences_criteria
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.generator import LaneGenerator
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.requests import Continuation, Continuations, Prompt
from prunetui.engine.options import Options
from prunetui.engine.session.session import open_session
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..support.evaluation import open_lanes, stock_models
from ..support.models import (
    WORDS,
    generate,
    make_speaker,
    make_spm_tokenizer,
    save_model_directory,
)
from ..support.references import softmax
from ..support.steps import decode_all, drift_of, lane_tokens, local_of, present

RECIPES = ("drop:attn=[1]", "drop:mlp=[0,2]", "control", "magnitude:0.5")
NEW = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def saved(folder: Path, family: str) -> Path:
    path = folder / family
    return path if path.exists() else save_model_directory(path, family)


def draw(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 250, (length,), generator=generator).tolist())


EXAMPLES = draw(0, 20)
TEXTS = [EXAMPLES + draw(1, 6), EXAMPLES + draw(2, 9), EXAMPLES + draw(2, 9), EXAMPLES[:7]]
"""Prompts that begin alike; one was asked before, one is the beginning of another."""


def run(lanes: EvaluatedLanes, *prompts: Prompt) -> list[Continuations]:
    return LaneGenerator(lanes).generate(prompts, lambda _: None)


def stock_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt
) -> list[int]:
    """What `generate` gives with the stop sequences of lm-eval."""
    tokens = torch.tensor([prompt.tokens])
    kind: Any = tokenizer
    stops = stop_sequences_criteria(kind, [*prompt.until], len(prompt.tokens), 1)
    settings = {"do_sample": False, "max_new_tokens": prompt.max_new_tokens}
    return generate(model, tokens, stopping_criteria=stops, **settings)[
        0, tokens.shape[1] :
    ].tolist()


def stock_text(tokenizer: PreTrainedTokenizerBase, tokens: list[int], until: Sequence[str]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert isinstance(text, str)
    return postprocess_generated_text(text, [*until], None)


@torch.inference_mode()
def probabilities(model: PreTrainedModel, text: Sequence[int], n: int) -> np.ndarray:
    """What the model chooses the last n tokens of a text from, float64 [n, vocabulary]."""
    z = model(torch.tensor([text[:-1]]), use_cache=False).logits[0, -n:]
    return np.array([softmax(row) for row in z.double().numpy()])


@pytest.mark.parametrize(
    "family", ["llama", "gemma3_text", pytest.param("gpt2", marks=pytest.mark.slow)]
)
def test_every_lane_writes_what_its_stock_model_writes(
    folder: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gemma3's window of 8 is shorter than most prompts: its caches cannot be cropped."""
    monkeypatch.setattr(shared_caches, "FORCED_CHUNK", 5)
    lanes = open_lanes(saved(folder, family), *RECIPES)
    tokenizer, models = lanes.loaded.tokenizer, stock_models(lanes)
    free = [stock_tokens(models[0], tokenizer, Prompt(text, (), NEW)) for text in TEXTS]
    # The baseline stops at its sixth token, other lanes where they come to it, if they do.
    untils = [
        (str(tokenizer.decode(tokens[4:6])),) if i % 2 else () for i, tokens in enumerate(free)
    ]
    prompts = [Prompt(text, until, NEW) for text, until in zip(TEXTS, untils, strict=True)]
    differing = 0
    for prompt, continued in zip(prompts, run(lanes, *prompts), strict=True):
        expected = [stock_tokens(model, tokenizer, prompt) for model in models]
        assert [lane.tokens for lane in continued.lanes] == expected
        texts = [stock_text(tokenizer, tokens, prompt.until) for tokens in expected]
        assert [lane.text for lane in continued.lanes] == texts
        baseline, *variants = continued.lanes
        assert (baseline.kl, baseline.divergence) == (None, None)
        text, n = [*prompt.tokens, *expected[0]], len(expected[0])
        p, *others = (probabilities(model, text, n) for model in models)
        for variant, q in zip(variants, others, strict=True):
            kl = (p * (np.log(p) - np.log(q))).sum(axis=-1).mean()
            assert variant.kl == pytest.approx(kl, abs=1e-4)
            differing += variant.tokens != baseline.tokens
        control = variants[2]
        assert (control.tokens, control.kl, control.divergence) == (baseline.tokens, 0.0, None)
    assert differing > len(TEXTS)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "lfm2"])
def test_drift_and_kl_are_those_of_a_session_on_the_same_tokens(folder: Path, family: str) -> None:
    """lfm2's convolutions keep a state that no crop brings back: it is read token by token."""
    path = saved(folder, family)
    session = open_session(
        Options(model=str(path), variants=RECIPES[:3], prompt="Twelve bytes", max_new_tokens=NEW),
        None,
        lambda *_: None,
    )
    steps = decode_all(session)
    prompt = Prompt(tuple(session.trace.header.prompt.tokens), (), NEW)
    session.close()
    lanes = open_lanes(path, *RECIPES[:3])
    (_, continued) = run(lanes, Prompt(prompt.tokens[:6], (), 3), prompt)
    for lane in range(4):
        assert continued.lanes[lane].tokens == lane_tokens(steps, lane)
    for lane in range(1, 4):
        drift, expected = continued.drift[lane - 1], drift_of(steps[0], lane)
        for name in ("cos_h", "cos_z", "cos_p", "par_h", "orth_z", "kl", "kl_rev", "dp", "logq"):
            assert getattr(drift, name) == pytest.approx(getattr(expected, name), abs=1e-4), name
        assert drift.top1 == expected.top1
        local = [present(local_of(step, lane).kl) for step in steps if step.lanes[0]]
        assert continued.lanes[lane].kl == pytest.approx(np.mean(local), abs=1e-4)


# -- where a text ends ----------------------------------------------------------------------------


END, FIRST, PROMPT = 2, 259, 3
"""The end token and the first word of the tokenizer like Llama 2's; length of the prompts."""


def speaker(folder: Path, *pieces: str) -> EvaluatedLanes:
    """A lane that writes these pieces after a prompt of three tokens, and then ends."""
    name = "-".join(str(WORDS.index(piece)) for piece in pieces)
    path = folder / f"speaker {name}"
    if not path.exists():
        script = [FIRST + WORDS.index(piece) for piece in pieces]
        model = make_speaker(PROMPT - 1, [*script, END], FIRST + len(WORDS))
        model.generation_config.eos_token_id = END
        model.save_pretrained(path)
        make_spm_tokenizer().save_pretrained(path)
    return open_lanes(path)


def spoken(lanes: EvaluatedLanes, until: tuple[str, ...], count: int = 20) -> Continuation:
    """What the speaker writes, which must be what its stock model writes."""
    prompt = Prompt((5, 6, 7), until, count)
    (continued,) = run(lanes, prompt)
    (lane,) = continued.lanes
    (model,) = stock_models(lanes)
    tokenizer = lanes.loaded.tokenizer
    assert lane.tokens == stock_tokens(model, tokenizer, prompt)
    assert lane.text == stock_text(tokenizer, lane.tokens, until)
    return lane


@pytest.mark.parametrize(
    ("until", "count", "text"),
    [
        ((), 7, "A dog."),
        ((".",), 6, "A dog"),
        (("A",), 1, ""),
        (("o",), 4, "A d"),
        (("og", "d"), 3, "A "),
        (("g.", "."), 6, "A do"),
        (("zebra",), 7, "A dog."),
        (("</s>",), 7, "A dog."),
    ],
)
def test_a_text_ends_with_its_stop_sequence_or_an_end_token(
    folder: Path, until: tuple[str, ...], count: int, text: str
) -> None:
    """As lm-eval does it: the first stop sequence of the list cuts first."""
    lane = spoken(speaker(folder, "▁A", "▁", "d", "o", "g", "."), until)
    assert (len(lane.tokens), lane.text) == (count, text)


def test_a_stop_sequence_in_too_many_tokens_cuts_the_text_without_ending_it(folder: Path) -> None:
    """As in lm-eval, whose own tokens of it and two more do not reach back to its beginning."""
    lane = spoken(speaker(folder, *"A▁B▁C▁D", "d", "o"), ("A B C D",))
    assert (len(lane.tokens), lane.text) == (10, "")
    assert spoken(speaker(folder, *"A▁B▁C▁D", "d", "o"), ("B C D",)).text == "A "
    assert len(spoken(speaker(folder, *"A▁B▁C▁D", "d", "o"), ("B C D",)).tokens) == 7


def test_a_text_ends_after_so_many_tokens_or_where_the_context_does(folder: Path) -> None:
    lanes = speaker(folder, "▁A", *["▁", "B"] * 20)
    assert len(spoken(lanes, (), 5).tokens) == 5
    tokens = lanes.loaded.tokenizer.encode("A" * 90, add_special_tokens=False)
    (lane,) = run(lanes, Prompt(tuple(tokens[:60]), (), 20))[0].lanes
    assert len(lane.tokens) == 64 - 60
    (full,) = run(lanes, Prompt(tuple(tokens[:64]), (), 20))[0].lanes
    assert (full.tokens, full.text, full.kl) == ([], "", None)
    with pytest.raises(UserError, match="a prompt has 65 tokens and the model's context 64"):
        run(lanes, Prompt(tuple(tokens[:65]), (), 1))


def test_a_lane_that_ends_first_differs_there(folder: Path) -> None:
    """Lanes with weights of their own: one ends where the baseline goes on, one the other way."""
    talker = speaker(folder, "▁A", "▁", *"Bo" * 15)
    short = speaker(folder, "▁A", "▁")
    for first, second in ((talker, short), (short, talker)):
        models = [*first.models, *second.models]
        lanes = dataclasses.replace(first, models=models)
        baseline, variant = run(lanes, Prompt((5, 6, 7), (), 26))[0].lanes
        assert (baseline.divergence, variant.divergence) == (None, 2)
        by_length = sorted([baseline, variant], key=lambda lane: len(lane.tokens))
        assert [len(lane.tokens) for lane in by_length] == [3, 26]


# -- what goes wrong ------------------------------------------------------------------------------


WEIGHT = "model.layers.0.mlp.down_proj.weight"
"""One of those that are not shared with the baseline where they are pruned."""


def test_a_lane_without_numbers_writes_nothing_more(folder: Path) -> None:
    lanes = open_lanes(saved(folder, "llama"), "magnitude:0.5", "drop:attn=[1]")
    whole = run(lanes, Prompt(TEXTS[0], (), NEW))[0]
    with torch.inference_mode():
        lanes.models[1].group.model.get_parameter(WEIGHT).data.fill_(torch.nan)
    (continued,) = run(lanes, Prompt(TEXTS[0], (), NEW))
    broken = continued.lanes[1]
    assert (broken.tokens, broken.text, broken.kl) == ([], "", None)
    assert broken.divergence == 0
    assert continued.drift[0].not_comparable
    assert [continued.lanes[lane].tokens for lane in (0, 2)] == [
        whole.lanes[lane].tokens for lane in (0, 2)
    ]
    lanes = dataclasses.replace(lanes, models=lanes.models[1::-1])
    baseline, variant = run(lanes, Prompt(TEXTS[0], (), NEW))[0].lanes
    assert (baseline.tokens, variant.kl, variant.divergence) == ([], None, 0)


def weights(lanes: EvaluatedLanes) -> dict[str, torch.Tensor]:
    return {name: p.clone() for name, p in lanes.loaded.model.named_parameters()}


def test_models_are_as_loaded_between_calls_and_one_proof_is_enough(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs, prove = [], prepared_lanes.prove
    monkeypatch.setattr(
        prepared_lanes, "prove", lambda *arguments: proofs.append(0) or prove(*arguments)
    )
    lanes = open_lanes(saved(folder, "llama"), *RECIPES)
    generator, before, model = LaneGenerator(lanes), weights(lanes), lanes.loaded.model
    tokens = torch.tensor([TEXTS[0]])
    z = model(tokens).logits
    prompt, fractions = Prompt(TEXTS[0], (), NEW), []
    first = generator.generate([prompt], fractions.append)
    again = generator.generate([prompt, prompt], fractions.append)
    assert fractions == [1.0, 0.5, 1.0]
    assert again[0] == first[0]
    assert len(proofs) == 1
    assert generator.generate([], fractions.append) == []
    assert torch.equal(model(tokens).logits, z)
    after = weights(lanes)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("forward" in vars(module) for module in model.modules())


def test_memory_that_runs_out_is_a_sentence_and_the_next_call_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = open_lanes(saved(folder, "llama"), *RECIPES)
    generator, prompt = LaneGenerator(lanes), Prompt(TEXTS[0], (), NEW)
    expected = generator.generate([prompt], lambda _: None)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "logits", fail)
        with pytest.raises(UserError, match=r"to 34 tokens.* in 5 lanes; fewer variants") as error:
            generator.generate([prompt], lambda _: None)
    assert str(error.value).startswith("out of memory while generating")
    assert not any("forward" in vars(module) for module in lanes.loaded.model.modules())
    assert generator.generate([prompt], lambda _: None) == expected
