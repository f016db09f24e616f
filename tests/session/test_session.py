"""Sessions on tiny models: steps, rewinds, contexts, ends, and what goes wrong."""

import errno
from pathlib import Path

import prunetui.engine.model.loading as loading
import pytest
import torch
from prunetui.engine.decode.lockstep import Lockstep
from prunetui.engine.errors import UserError
from prunetui.engine.measure.step_reduction import StepReduction
from prunetui.engine.model.anatomy import find_anatomy
from prunetui.engine.model.dropped import Dropped
from prunetui.engine.model.loading import Loaded
from prunetui.engine.model.weight_group import WeightGroup
from prunetui.engine.options import Options
from prunetui.engine.progress import Progress
from prunetui.engine.session.session import Session, open_session
from prunetui.engine.trace.file import TraceWriter, read_trace
from prunetui.engine.trace.records import Step
from transformers import AutoModelForCausalLM

from ..support.lockstep import install_lockstep
from ..support.models import END, make_tokenizer, save_model_directory
from ..support.steps import drift_of, lane_tokens, present, token_of, whole

STEPS = 12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One directory per family; gemma2's sliding window of 8 is shorter than any prompt here."""
    folder = tmp_path_factory.mktemp("models")
    return {name: save_model_directory(folder / name, name) for name in ("llama", "gemma2", "lfm2")}


def open_tiny(models: dict[str, Path], family: str = "llama", record_to=None, **options) -> Session:
    settings = {
        "model": str(models[family]),
        "variants": ("drop:attn=[1]", "drop:mlp=[0,2]"),
        "prompt": "Twelve bytes",
        "ignore_eos": True,
        "max_new_tokens": STEPS,
    }
    return open_session(Options(**(settings | options)), record_to, lambda *_: None)


def run(session: Session) -> list[Step]:
    while session.finished is None:
        session.step()
    return session.trace.steps


def without_cost(steps: list[Step]) -> list[tuple]:
    return [(s.step, s.lanes, s.candidates, s.drift, s.layers) for s in steps]


def test_a_step_is_whole(models) -> None:
    session = open_tiny(models, context="free")
    header = session.trace.header
    step = session.step()
    assert [lane.name for lane in header.lanes] == ["baseline", "drop:attn=[1]", "drop:mlp=[0,2]"]
    assert (header.lanes[2].dropped_attention, header.lanes[2].dropped_mlp) == ([], [0, 2])
    assert header.prompt.tokens == [
        make_tokenizer().convert_tokens_to_ids(c) for c in "TwelveĠbytes"
    ]
    assert header.model.parameters == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(models["llama"]).parameters()
    )
    assert (header.model.family, header.model.layers, header.model.dtype) == ("llama", 4, "float32")
    assert len(step.drift) == len(step.layers) == 2
    assert len(present(step.layers_of(1))) == 8
    probs = [whole(present(row)) for row in step.candidates.probs]
    for lane, token in enumerate(whole(step.lanes)):
        place = step.candidates.tokens.index(token.token)
        assert probs[lane][place] == pytest.approx(token.prob)
        assert max(probs[lane]) == pytest.approx(token.prob)
    assert probs[0] == sorted(probs[0], reverse=True)
    assert step.memory > 0
    assert step.read == 0
    # float32: all weights but the embedding, whose rows are looked up; keys and values of 4 layers
    # and 2 heads of 8, for 3 lanes of 12 + 1 positions.
    weights = header.model.parameters - 257 * 32
    assert session.step().read == 4 * (weights + 2 * 4 * 2 * 8 * 3 * 13)
    assert header.bandwidth > 1e8
    chosen = step.candidates.tokens.index(token_of(step).token)
    assert drift_of(step).dp == pytest.approx(probs[1][chosen] - probs[0][chosen])


@pytest.mark.parametrize("family", ["llama", "gemma2", "lfm2"])
@pytest.mark.parametrize("context", ["free", "forced"])
@pytest.mark.parametrize("to", [0, 1, 5, STEPS - 1])
def test_a_rewind_decodes_the_same_again(models, family: str, context: str, to: int) -> None:
    """Bit for bit where the caches can be cropped; else the prompt is read again."""
    session = open_tiny(models, family, context=context, temperature=0.9, seed=4)
    first = run(session)
    session.rewind(to)
    assert len(session.trace.steps) == to
    again = run(session)
    if family == "llama":
        assert without_cost(again) == without_cost(first)
    for lane in range(3):
        assert lane_tokens(again, lane) == lane_tokens(first, lane)
        assert session.trace.text(lane) == "".join(token_of(step, lane).text for step in first)
    assert drift_of(again[-1]).kl == pytest.approx(drift_of(first[-1]).kl, abs=1e-4)


def test_free_lanes_read_their_own_tokens_and_forced_ones_the_baselines(models) -> None:
    free, forced = run(open_tiny(models)), run(open_tiny(models, context="forced"))
    session = open_tiny(models)
    prompt = session.trace.header.prompt.tokens
    session.close()
    model = AutoModelForCausalLM.from_pretrained(models["llama"])
    group = WeightGroup(model, find_anatomy(model))
    lanes = [Dropped(), Dropped(frozenset({1})), Dropped(mlp=frozenset({0, 2}))]
    assert lane_tokens(free, 0) == lane_tokens(forced, 0)
    for lane in (1, 2):
        assert lane_tokens(free, lane) != lane_tokens(free, 0)
        for steps, read in ((free, lane_tokens(free, lane)), (forced, lane_tokens(forced, 0))):
            expected = []
            for number in range(STEPS):
                lockstep = install_lockstep([(group, gates) for gates in lanes])
                rows = torch.tensor([*prompt, *read[:number]]).repeat(3, 1)
                expected.append(lockstep.prefill(rows).z[lane].argmax().item())
                lockstep.remove()
            assert lane_tokens(steps, lane) == expected


def test_equal_lanes_sample_equal_tokens_and_seeds_differ(models) -> None:
    sampled = {}
    for seed in (1, 2):
        session = open_tiny(models, variants=("drop:attn=[1]",) * 2, temperature=1.5, seed=seed)
        steps = run(session)
        assert lane_tokens(steps, 1) == lane_tokens(steps, 2)
        sampled[seed] = lane_tokens(steps, 0)
    assert sampled[1] != sampled[2]


def test_the_measures_use_the_sampling_temperature(models) -> None:
    hot = open_tiny(models, temperature=2.0).step()
    greedy = open_tiny(models).step()
    assert drift_of(hot).cos_z == drift_of(greedy).cos_z
    assert present(token_of(hot).entropy) > present(token_of(greedy).entropy)
    assert drift_of(hot).est_kl != drift_of(greedy).est_kl


def end_at(monkeypatch, lane: int, step: int) -> None:
    """Make one lane choose the end token at one step."""
    draw, reduce, drawn_for = StepReduction.draw_noise, StepReduction.__call__, [-1]

    def drawing(self, number, vocabulary):
        drawn_for[0] = number
        draw(self, number, vocabulary)

    def ending(self, outputs, forced):
        return reduce(self, outputs, {**forced, lane: END} if drawn_for == [step] else forced)

    monkeypatch.setattr(StepReduction, "draw_noise", drawing)
    monkeypatch.setattr(StepReduction, "__call__", ending)


def test_a_lane_that_ended_keeps_its_row_and_says_nothing(models, monkeypatch) -> None:
    session = open_tiny(models, ignore_eos=False)
    end_at(monkeypatch, lane=1, step=2)
    steps = run(session)
    assert len(steps) == STEPS
    assert [token_of(step, 1).ended for step in steps[:3]] == [False, False, True]
    for step in steps[3:]:
        assert step.lanes[1] is None
        assert step.drift[0] is None
        assert step.layers[0] is None
        assert step.candidates.probs[1] is None
        assert step.lanes[2] is not None
        assert step.drift[1] is not None


def test_no_drift_is_measured_once_the_baseline_has_ended(models, monkeypatch) -> None:
    session = open_tiny(models, ignore_eos=False)
    end_at(monkeypatch, lane=0, step=2)
    steps = run(session)
    assert steps[2].drift[0] is not None
    assert steps[3].drift == [None, None]
    assert steps[3].lanes[1] is not None


def test_in_a_forced_context_the_baseline_ends_all(models, monkeypatch) -> None:
    session = open_tiny(models, ignore_eos=False, context="forced")
    end_at(monkeypatch, lane=1, step=1)
    assert not token_of(session.step(), 1).ended
    assert not token_of(session.step(), 1).ended
    session.rewind(0)
    end_at(monkeypatch, lane=0, step=1)
    steps = run(session)
    assert len(steps) == 2
    assert all(token.ended for token in whole(steps[-1].lanes))
    assert session.finished == "every lane has ended"
    with pytest.raises(UserError, match="every lane has ended"):
        session.step()


def test_decoding_stops_at_the_most_tokens_and_at_the_context(models) -> None:
    session = open_tiny(models, max_new_tokens=2)
    assert len(run(session)) == 2
    assert "--max-new-tokens" in present(session.finished)
    session = open_tiny(models, max_new_tokens=10_000)
    assert len(run(session)) == 256 - len("Twelve bytes")
    assert session.finished == "the model's context of 256 tokens is full"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n", "the prompt is empty"),
        ("x" * 256, "has 256 tokens and the model's context 256"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(models, prompt: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_tiny(models, prompt=prompt)
    session = open_tiny(models)
    before = run(session)
    with pytest.raises(UserError, match=message):
        session.restart(prompt=prompt)
    assert session.trace.steps is before


def test_tokens_that_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    """Of the tokenizer's 257; A is 33 and R 50."""
    models = {"llama": save_model_directory(tmp_path / "llama", vocab_size=50)}
    known = {"prompt": "12+3", "calibration_length": 8, "variants": ("drop:attn=[1]",)}
    with pytest.raises(UserError, match="'R' is the tokenizer's token 50, and the model knows 50"):
        open_tiny(models, **known | {"prompt": "R"})
    text = tmp_path / "text"
    text.write_text("R" * 8)
    for recipe in ("drop:attn=1", "wanda:0.5"):
        with pytest.raises(UserError, match="do not belong together"):
            open_tiny(models, **known | {"calibration": str(text), "variants": (recipe,)})
    with pytest.raises(UserError, match="do not belong together"):
        open_tiny(models, **known, answers=("A", "R"))
    session = open_tiny(models, **known)
    with pytest.raises(UserError, match="do not belong together"):
        session.restart(answers=("A", "R"))
    assert len(run(session)) == STEPS


def test_without_names_there_are_no_answers_that_the_model_does_not_know(tmp_path: Path) -> None:
    models = {"llama": save_model_directory(tmp_path / "llama", vocab_size=35)}
    session = open_tiny(models, prompt="12+3", variants=())
    assert session.trace.header.answers is None
    session.step()


# -- recording ------------------------------------------------------------------------------------


def test_what_is_recorded_is_what_was_shown(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models, record_to=path)
    run(session)
    session.rewind(3)
    session.step()
    assert session.recording == path
    session.close()
    trace = read_trace(path)
    assert trace.header == session.trace.header
    assert trace.steps == session.trace.steps
    assert len(trace.steps) == 4


def test_another_prompt_or_context_begins_another_file(models, tmp_path: Path) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models, record_to=path)
    session.step()
    session.restart()
    assert session.recording == path
    session.restart(prompt="Another")
    session.step()
    session.restart(context="forced")
    session.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "a-2.trace.jsonl",
        "a-3.trace.jsonl",
        "a.trace.jsonl",
    ]
    assert read_trace(tmp_path / "a-2.trace.jsonl").header.prompt.text == "Another"
    last = read_trace(tmp_path / "a-3.trace.jsonl").header
    assert (last.prompt.text, last.context) == ("Another", "forced")


def test_a_full_disk_stops_the_recording_and_not_the_decoding(
    models, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "a.trace.jsonl"
    session = open_tiny(models, record_to=path)
    session.step()
    session.step()

    def full(_self, _record) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TraceWriter, "write", full)
        session.step()
    assert session.recording_error == f"not recorded: cannot write {path} (No space left on device)"
    assert len(run(session)) == STEPS
    assert len(read_trace(path).steps) == 2


def test_out_of_memory_keeps_the_steps_and_decoding_can_go_on(models, monkeypatch) -> None:
    session = open_tiny(models)
    reference = without_cost(run(open_tiny(models)))
    for _ in range(5):
        session.step()
    advance = Lockstep.advance

    def fail(self, *arguments):
        advance(self, *arguments)  # the caches have grown when memory runs out
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "advance", fail)
        with pytest.raises(UserError, match="out of memory at step 5; the steps before it stand"):
            session.step()
    assert len(session.trace.steps) == 5
    resumed = run(session)
    assert [lane_tokens(resumed, lane) for lane in range(3)] == [
        [lanes[lane].token for _, lanes, *_ in reference] for lane in range(3)
    ]


def test_a_prompt_that_memory_has_no_room_for_leaves_the_old_one(models, monkeypatch) -> None:
    session = open_tiny(models)
    reference = without_cost(run(open_tiny(models)))
    for _ in range(3):
        session.step()

    def fail(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")

    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "prefill", fail)
        with pytest.raises(UserError, match="out of memory while reading the prompt"):
            session.restart(prompt="Another prompt")
    resumed = run(session)
    assert session.trace.header.prompt.text == "Twelve bytes"
    assert [lane_tokens(resumed, lane) for lane in range(3)] == [
        [lanes[lane].token for _, lanes, *_ in reference] for lane in range(3)
    ]


# -- what the options get wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("drop:attn", "does not parse at ▸"),
        ("drop:attn=5", "drops 5 attention sublayers, but there are 4 to drop"),
        ("drop:mlp=[9]", "names layer 9"),
    ],
)
def test_a_recipe_that_does_not_apply(models, variant: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_tiny(models, variants=(variant,))


def test_a_family_that_takes_no_dropping(tmp_path: Path) -> None:
    directory = save_model_directory(tmp_path / "opt", "opt", do_layer_norm_before=False)
    with pytest.raises(UserError, match="this opt model does not take layer dropping"):
        open_tiny({"opt": directory}, "opt")
    session = open_tiny({"opt": directory}, "opt", variants=())
    assert len(run(session)) == STEPS


def test_the_ranking_is_made_once_and_depends_on_the_text(models, tmp_path: Path) -> None:
    doing: list[str] = []

    def lanes(calibration: str | None = None) -> list[int]:
        options = Options(
            model=str(models["llama"]),
            variants=("drop:attn=2",),
            prompt="Hi",
            calibration=calibration,
            calibration_length=8,
        )
        session = open_session(options, None, lambda what, _: doing.append(what))
        return session.trace.header.lanes[1].dropped_attention

    first = lanes()
    assert "ranking the sublayers" in doing
    doing.clear()
    assert lanes() == first
    assert "ranking the sublayers" not in doing
    own = tmp_path / "own.txt"
    own.write_text("Some other text.")
    lanes(str(own))
    assert "ranking the sublayers" in doing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff\xfea", r"is not UTF-8 \(byte 0\)"),
        (b"short", "has 5 tokens, less than one sample of 8"),
    ],
)
def test_a_calibration_text_that_cannot_be_used(
    models, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "text"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_tiny(models, variants=("drop:attn=1",), calibration=str(file), calibration_length=8)


@pytest.mark.parametrize("calibration", [None, "self"])
def test_a_calibration_sample_longer_than_the_context(models, calibration: str | None) -> None:
    message = "samples of 257 tokens are longer than the model's context of 256"
    for recipe in ("drop:attn=1", "wanda:0.5"):
        with pytest.raises(UserError, match=message):
            open_tiny(models, variants=(recipe,), calibration=calibration, calibration_length=257)


def test_notes_of_loading_are_in_the_header(models, monkeypatch) -> None:
    def load(options: Options, progress: Progress) -> Loaded:
        loaded = loading.load(options, progress)
        loaded.notes.append("Its weights are half a model.")
        return loaded

    monkeypatch.setattr("prunetui.engine.variants.builder.load", load)
    assert open_tiny(models).trace.header.notes == ["Its weights are half a model."]
