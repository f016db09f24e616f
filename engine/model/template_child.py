"""The program of a process that renders chat templates, with limits of time and memory.

Run by its path. Reads a line of JSON, the paths of the packages, and then requests; writes a line
for each: `[text, null, null]`, or null and an error's text and type.
"""

import contextlib
import json
import os
import queue
import resource
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

MAX_BYTES = 1 << 30
"""The limit of the address space."""

MAX_TEXT_LENGTH = 10_000_000
"""The most characters of a rendered text."""


def import_renderer(transformers: str) -> Callable[..., Any]:
    """transformers' `render_jinja_template`, imported without the second that the rest takes."""
    packages = {"transformers": transformers, "transformers.utils": f"{transformers}/utils"}
    for name, folder in packages.items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except (ImportError, AttributeError):
        # In this version of transformers it needs more of the package.
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        from transformers.utils.chat_template_utils import render_jinja_template
    return render_jinja_template


def receive(requests: "queue.SimpleQueue[Any]") -> None:
    """Queue requests until the parent process ends, and end with it."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def send(answer: Any) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def limit(kind: int, maximum: int) -> None:
    # macOS has no limit of address space.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (maximum, maximum))


def main() -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    sys.path[:0], transformers, seconds = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=receive, args=(requests,), daemon=True).start()
    render = import_renderer(transformers)
    limit(resource.RLIMIT_AS, MAX_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, 0)
    send("ready")
    while True:
        request = requests.get()
        # For a parent that was killed, and code that holds the interpreter for ever.
        signal.alarm(seconds + 1)
        try:
            (text,), _ = render(**request)
            if len(text) > MAX_TEXT_LENGTH:
                raise ValueError(f"it makes {len(text)} characters of the prompt")
            answer = [text, None, None]
        except Exception as error:
            answer = [None, str(error), type(error).__name__]
        send(answer)
        signal.alarm(0)


if __name__ == "__main__":
    main()
