"""A text file of prompts as a task of an evaluation."""

import dataclasses
from pathlib import Path

import msgspec
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.evaluation.generator import LaneGenerator
from prunetui.engine.evaluation.lanes import EvaluatedLanes
from prunetui.engine.evaluation.prompts_file import PromptsTask, open_prompts_task
from prunetui.engine.evaluation.requests import Prompt
from prunetui.engine.evaluation.tasks import open_tasks
from prunetui.engine.results.records import End

from ..support.evaluation import open_lanes
from ..support.models import make_tokenizer, save_model_directory
from ..support.steps import present

TEXT = "One\n\n  \n Two: \nThree words here\n"


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedLanes:
    path = save_model_directory(tmp_path_factory.mktemp("models") / "tiny")
    opened = open_lanes(path, "drop:mlp=[0,2]")
    options = msgspec.structs.replace(opened.options, max_new_tokens=4)
    return dataclasses.replace(opened, options=options)


def open_file(path: Path, lanes: EvaluatedLanes, text: str | bytes = TEXT) -> PromptsTask:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_prompts_task(path, lanes, LaneGenerator(lanes))


def with_settings(lanes: EvaluatedLanes, **changes: object) -> EvaluatedLanes:
    settings = msgspec.structs.replace(lanes.settings, **changes)
    return dataclasses.replace(lanes, settings=settings)


def test_a_line_is_a_prompt_and_has_no_score(tmp_path: Path, lanes: EvaluatedLanes) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(TEXT)
    generator = LaneGenerator(lanes)
    (task,) = open_tasks([str(path)], lanes, generator, generator)  # pyright: ignore[reportArgumentType]
    record = task.record
    assert (record.name, record.kind, record.metrics) == ("mine.txt", "generation", [])
    assert (record.items, record.total) == (3, 3)
    items = task.answer(0, 2, lambda _: None) + task.answer(2, 3, lambda _: None)
    tokenizer = make_tokenizer()
    texts = ["One", " Two: ", "Three words here"]
    assert [item.question for item in items] == [item.contexts[0] for item in items] == texts
    assert [item.index for item in items] == [0, 1, 2]
    assert len({item.hash for item in items}) == 3
    prompts = [Prompt(tuple(tokenizer.encode(text)), (), 4) for text in texts]
    for item, prompt, written in zip(
        items, prompts, generator.generate(prompts, lambda _: None), strict=True
    ):
        assert (tuple(item.tokens), item.max_new_tokens, item.gold) == (prompt.tokens, 4, "")
        assert present(item.drift[0]).kl == pytest.approx(written.drift[0].kl, abs=1e-5)
        for answer, lane in zip(item.answers, written.lanes, strict=True):
            assert (answer.text, answer.tokens) == (lane.text, lane.tokens)
            assert answer.divergence == lane.divergence
            assert answer.kl == pytest.approx(lane.kl, abs=1e-5)
    assert items[0].answers[1].kl
    assert task.end(items) == End(task="mine.txt", scores=[{}, {}])


def test_the_limit_takes_the_first_prompts_and_the_digest_knows_them(
    tmp_path: Path, lanes: EvaluatedLanes
) -> None:
    path = tmp_path / "mine.txt"
    task = open_file(path, with_settings(lanes, limit=2))
    assert (task.record.items, task.record.total) == (2, 3)
    digests = {task.record.digest, open_file(path, lanes).record.digest}
    digests.add(open_file(path, lanes, TEXT + "more").record.digest)
    longer = msgspec.structs.replace(lanes.options, max_new_tokens=5)
    digests.add(open_file(path, dataclasses.replace(lanes, options=longer)).record.digest)
    assert len(digests) == 4
    assert open_file(path, lanes, TEXT.replace("\n", "\r\n")).record.digest in digests


def test_prompts_go_through_the_chat_template_if_that_is_asked_for(
    tmp_path: Path, lanes: EvaluatedLanes
) -> None:
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    tokenizer = make_tokenizer(template)
    loaded = dataclasses.replace(lanes.loaded, tokenizer=tokenizer)
    chatty = dataclasses.replace(lanes, loaded=loaded)
    raw = open_file(tmp_path / "a.txt", chatty)
    asked = open_file(tmp_path / "b.txt", with_settings(chatty, apply_chat_template=True))
    assert raw.answer(0, 1, lambda _: None)[0].tokens == tokenizer.encode("One")
    (item,) = asked.answer(0, 1, lambda _: None)
    assert (item.question, item.contexts) == ("One", ["<One>"])
    assert item.tokens == tokenizer.encode("<One>")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no prompt; write one a line"),
        (" \n\t\n", "has no prompt; write one a line"),
        (b"ab\xff", r"the file of prompts .*mine.txt is not UTF-8 \(byte 2\)"),
        ("ok\n" + "x" * 300, r"line 2 of .*mine.txt: the prompt has 300 tokens and .* 256"),
    ],
)
def test_a_bad_file_is_one_sentence(
    tmp_path: Path, lanes: EvaluatedLanes, text: str | bytes, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        open_file(tmp_path / "mine.txt", lanes, text)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_sentence(tmp_path: Path, lanes: EvaluatedLanes) -> None:
    generator = LaneGenerator(lanes)
    with pytest.raises(UserError, match=r"cannot read the file of prompts .*none.txt: No such"):
        open_prompts_task(tmp_path / "none.txt", lanes, generator)
    chat = with_settings(lanes, apply_chat_template=True)
    with pytest.raises(UserError, match="no chat template; leave out --apply-chat-template"):
        open_file(tmp_path / "mine.txt", chat)
