"""A text file of prompts as a task: what the lanes write, without a right answer."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import OptionError, UserError
from ..files import read_prompts
from ..model.prompts import ReadPrompt, read_prompt
from ..results import records
from .lanes import EvaluatedLanes
from .requests import Continuations, Generator, Prompt

CHUNK = 8
VERSION = "1"


def open_prompts_task(path: Path, lanes: EvaluatedLanes, generator: Generator) -> "PromptsTask":
    """Open a UTF-8 text file of one prompt a line; empty lines are left out.

    Prompts are read through the model's chat template if the settings say so, and else as they are.
    A text ends where the model's context does. Raises `UserError` for a file that cannot be read or
    has no prompt, for a prompt that the model cannot read, and where there is no chat template.
    """
    prompts = read_prompts(path)
    templated = lanes.settings.apply_chat_template
    if templated and not lanes.loaded.tokenizer.chat_template:
        raise OptionError(
            f"{lanes.loaded.name} brings no chat template; leave out --apply-chat-template"
        )
    read = []
    for number, line in prompts[: lanes.settings.limit]:
        try:
            read.append(read_prompt(line, lanes.loaded, raw=not templated))
        except UserError as error:
            raise OptionError(f"line {number} of {path}: {error}") from error
    return PromptsTask(path.name, read, len(prompts), lanes, generator)


class PromptsTask:
    """The `EvaluationTask` of prompts that all lanes go on from."""

    def __init__(
        self,
        name: str,
        prompts: Sequence[ReadPrompt],
        total: int,
        lanes: EvaluatedLanes,
        generator: Generator,
    ) -> None:
        """`total` is the number of prompts in the file, of which the first are asked."""
        self._prompts = prompts
        self._lane_count = len(lanes.models)
        self._max_new_tokens = lanes.options.max_new_tokens
        self._generator = generator
        self.chunk = CHUNK
        notes = {note: None for prompt in prompts for note in prompt.notes}
        config = {
            "max_new_tokens": self._max_new_tokens,
            "apply_chat_template": lanes.settings.apply_chat_template,
        }
        texts = [prompt.record.text for prompt in prompts]
        self.record = records.Task(
            name=name,
            kind="generation",
            items=len(prompts),
            total=total,
            metrics=[],
            version=VERSION,
            digest=_hash(repr((config, texts))),
            config=config,
            notes=[*notes],
        )

    def answer(self, first: int, last: int, report: Callable[[float], None]) -> list[records.Item]:
        """Go on from the prompts `first` to `last` - 1 in all lanes."""
        asked = range(first, last)
        prompts = [
            Prompt(tuple(self._prompts[index].record.tokens), (), self._max_new_tokens)
            for index in asked
        ]
        written = self._generator.generate(prompts, report)
        return [self._item(*each) for each in zip(asked, written, strict=True)]

    def end(self, items: list[records.Item]) -> records.End:  # noqa: ARG002
        """The end, without scores."""
        return records.End(task=self.record.name, scores=[{} for _ in range(self._lane_count)])

    def _item(self, index: int, written: Continuations) -> records.Item:
        prompt = self._prompts[index]
        text = prompt.record.text
        return records.Item(
            task=self.record.name,
            index=index,
            hash=_hash(text),
            question=text,
            gold="",
            contexts=[prompt.text],
            tokens=prompt.record.tokens,
            answers=[
                records.Answer(
                    text=lane.text,
                    tokens=lane.tokens,
                    divergence=lane.divergence,
                    kl=lane.kl,
                )
                for lane in written.lanes
            ],
            drift=[*written.drift],
            max_new_tokens=self._max_new_tokens,
            doc={"prompt": text},
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
