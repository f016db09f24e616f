"""The program of a process that renders chat templates, with limits of time and memory.

Run by its path. Reads a line of JSON, the paths of the packages, and then requests; writes a line
for each: `[text, null, null]`, or null, what was raised, and its kind.
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

MEMORY = 1 << 30
"""Bytes of address space."""

LONGEST = 10_000_000
"""Characters of a rendered text."""


def import_renderer(transformers: str) -> Callable[..., Any]:
    """transformers' own function, without the second that the rest of the package takes."""
    packages = {"transformers": transformers, "transformers.utils": f"{transformers}/utils"}
    for name, folder in packages.items():
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except (ImportError, AttributeError):
        # It needs more of the package in this version.
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        from transformers.utils.chat_template_utils import render_jinja_template
    return render_jinja_template


def receive(requests: "queue.SimpleQueue[Any]") -> None:
    """End this process with the one that asks."""
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(0)


def send(answer: Any) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def limit(kind: int, most: int) -> None:
    # macOS knows no limit of address space.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    sys.path[:0], transformers, seconds = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=receive, args=(requests,), daemon=True).start()
    render = import_renderer(transformers)
    limit(resource.RLIMIT_AS, MEMORY)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, 0)
    send("ready")
    while True:
        request = requests.get()
        # Should the asking process be killed, or code that holds the interpreter never end.
        signal.alarm(seconds + 1)
        try:
            (text,), _ = render(**request)
            if len(text) > LONGEST:
                raise ValueError(f"it makes {len(text)} characters of the prompt")
            answer = [text, None, None]
        except Exception as error:
            answer = [None, str(error), type(error).__name__]
        send(answer)
        signal.alarm(0)


if __name__ == "__main__":
    main()
