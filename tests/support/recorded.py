"""Traces recorded in a directory, for tests of the list of sessions."""

from pathlib import Path
from typing import Any

import msgspec
from prunetui.engine.trace.file import SUFFIX, TraceWriter
from prunetui.engine.trace.records import Header

from .traces import make_header, make_step


def recorded_header(session: str | None = None, minute: int = 0, **changes: Any) -> Header:
    """Header of a trace begun so many minutes after noon, UTC."""
    created = f"2026-01-02T{12 + minute // 60}:{minute % 60:02}:00+00:00"
    changes = {"session": session, "created": created, **changes}
    return msgspec.structs.replace(make_header(), **changes)


def write_recorded(
    directory: Path,
    name: str,
    session: str | None = None,
    minute: int = 0,
    steps: int = 6,
    **changes: Any,
) -> Path:
    """Write a trace, of whose lanes the first variant differs from step 4 on."""
    path = directory / f"{name}{SUFFIX}"
    writer = TraceWriter(path, recorded_header(session, minute, **changes))
    for number in range(steps):
        writer.write(make_step(number))
    writer.close()
    return path
