"""Chat templates of models, rendered in a separate process: a template is code, which can loop or
allocate for ever."""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import transformers
from transformers import PreTrainedTokenizerBase

from ..errors import UserError, reason
from ..files import exists
from ..foreign import foreign_code

RENDER_SECONDS = 10
"""The time that a template has to render a prompt."""

START_SECONDS = 60
"""The time that the process has to start, on a busy machine."""

REMEDY = "--raw reads the prompt without it"
PROBE = "needle"
"""A prompt that no template contains."""


class TemplateError(Exception):
    """An error that a template raised."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message or kind)
        self.deliberate = kind == "TemplateError"
        """Whether the template called `raise_exception`."""


class TemplateLimitError(Exception):
    """A template that is too slow, or broke the process."""


class TemplateProcess:
    """A process that renders templates until one is too slow or breaks it."""

    def __init__(self) -> None:
        # Not the environment's secrets; templates that write the date need the time zone.
        names = ("TZ", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        program = Path(__file__).with_name("template_child.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},
            cwd="/",
            # ctrl+c is for the parent alone.
            start_new_session=True,
        )
        self._answers = b""
        self._ready = False
        self._send(
            [[p for p in sys.path if p], str(Path(transformers.__file__).parent), RENDER_SECONDS]
        )

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def render(self, request: dict[str, Any]) -> str:
        """Render one request.

        Raises `TemplateError` for an error of the template, else `TemplateLimitError`.
        """
        try:
            if not self._ready:
                self._receive(START_SECONDS)
                self._ready = True
            self._send(request)
            text, error, kind = self._receive(RENDER_SECONDS)
        except BaseException as problem:
            # A late answer would be taken for that to the next request.
            self.end()
            if isinstance(problem, TimeoutError):
                raise TemplateLimitError(f"it was not done after {RENDER_SECONDS} s") from None
            if isinstance(problem, EOFError | BrokenPipeError):
                raise TemplateLimitError("it broke the process that renders it") from None
            raise
        if kind == "MemoryError":
            raise TemplateLimitError("it takes more than 1 GB of memory")
        if error is not None:
            raise TemplateError(error, kind)
        return text

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _send(self, request: Any) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()

    def _receive(self, seconds: float) -> Any:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = monotonic() + seconds
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._answers:
            if not poll.poll(max(0, deadline - monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(descriptor, 1 << 20)
            if not chunk:
                raise EOFError
            self._answers += chunk
        line, _, self._answers = self._answers.partition(b"\n")
        return json.loads(line)


_lock = threading.Lock()
_process: TemplateProcess | None = None


def start_renderer() -> TemplateProcess:
    """The process, which is started if none runs; call it early, so that no prompt has to wait.

    Raises `UserError` if none can be started.
    """
    global _process
    with _lock:
        if _process is None or not _process.runs:
            try:
                _process = TemplateProcess()
            except OSError as error:
                raise UserError(
                    f"no process can be started to render the chat template ({reason(error)}); "
                    f"{REMEDY}"
                ) from error
            atexit.register(_process.end)
        return _process


def has_template(directory: Path) -> bool:
    """Whether a model's directory seems to have a chat template, without loading the tokenizer."""
    if exists(directory / "chat_template.jinja"):
        return True
    try:
        return b'"chat_template"' in (directory / "tokenizer_config.json").read_bytes()
    except OSError:
        return False


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, name: str) -> str:
    """The text that the model reads for a user's message, as by `apply_chat_template`.

    Raises `UserError` for a template that fails, leaves the message out or is too slow.
    """
    what = f"the chat template of {name} does not take the prompt"
    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        with foreign_code(what, REMEDY):
            text: Any = tokenizer.apply_chat_template(
                _messages(prompt), add_generation_prompt=True, tokenize=False
            )
        return text
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise UserError(
                f"the chat templates of {name} are called {', '.join(sorted(template))}, and none "
                f"of them default; {REMEDY}"
            )
        template = template["default"]

    def render(content: Any) -> str:
        return start_renderer().render(
            {
                "conversations": [_messages(content)],
                "chat_template": template,
                "add_generation_prompt": True,
                **tokenizer.special_tokens_map,
            }
        )

    errors: list[TemplateError] = []
    with foreign_code(what, REMEDY):
        # Some templates read a list of parts alone.
        for form in (str, _parts):
            try:
                text = render(form(prompt))
                # Not the prompt, which may be trimmed, escaped or there by chance.
                if PROBE in render(form(PROBE)).lower():
                    return text
            except TemplateError as error:
                errors.append(error)
        if errors:
            raise next((error for error in errors if error.deliberate), errors[0])
    raise UserError(f"the chat template of {name} leaves the prompt out; {REMEDY}")


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _messages(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]
