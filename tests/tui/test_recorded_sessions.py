"""The recorded sessions of a directory: grouping, order, caching, damage and deletion."""

import os
from pathlib import Path

import platformdirs
import pytest
from prunetui.engine.errors import UserError
from prunetui.engine.trace.file import SUFFIX, TraceWriter
from prunetui.tui.user.outline_cache import FILE, OutlineCache
from prunetui.tui.user.recorded_sessions import (
    RecordedSession,
    RecordedTrace,
    delete_traces,
    list_sessions,
    read_outlines,
)

from ..support.recorded import recorded_header, write_recorded
from ..support.traces import make_step, write_whole_trace


def never() -> bool:
    return False


def listed(directory: Path, recording: Path | None = None) -> list[RecordedSession]:
    return list_sessions(directory, recording, OutlineCache(), never)


def names(sessions: list[RecordedSession]) -> list[list[str]]:
    return [[trace.name for trace in session.traces] for session in sessions]


def read(directory: Path) -> list[RecordedTrace]:
    """The traces whose outlines had to be read, in that order."""
    found: list[RecordedTrace] = []
    outlines = OutlineCache()
    sessions = list_sessions(directory, None, outlines, never)
    read_outlines(sessions, outlines, found.append, never)
    return found


def test_traces_of_a_session_are_one_entry_whatever_their_names(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a", "one", minute=0)
    write_recorded(tmp_path, "a-2", "one", minute=2)
    write_recorded(tmp_path, "moved", "one", minute=1)
    write_recorded(tmp_path, "a-3", "two", minute=3)
    sessions = listed(tmp_path)
    assert names(sessions) == [["a-3"], ["a-2", "moved", "a"]]
    assert [session.key for session in sessions] == ["a-3", "a"]


def test_old_traces_are_one_entry_by_name_model_and_bandwidth(tmp_path: Path) -> None:
    own = "20260102-120000-41"
    for minute, name in enumerate([own, f"{own}-2", f"{own}-10", "20260102-120000-42", "run-2"]):
        write_recorded(tmp_path, name, minute=minute)
    write_recorded(tmp_path, "run", minute=10, bandwidth=1e9)
    assert names(listed(tmp_path)) == [
        ["run"],
        ["run-2"],
        ["20260102-120000-42"],
        [f"{own}-10", f"{own}-2", own],
    ]


def test_traces_of_one_second_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ["a", "a-2", "a-10", "a-9"]:
        write_recorded(tmp_path, name, "one")
    assert names(listed(tmp_path)) == [["a-10", "a-9", "a-2", "a"]]


def test_the_newest_trace_with_steps_stands_for_its_session(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a", "one", minute=0)
    write_recorded(tmp_path, "a-2", "one", minute=1)
    write_recorded(tmp_path, "a-3", "one", minute=2, steps=0)
    (session,) = listed(tmp_path)
    assert session.shown.name == "a-3"
    for trace in read(tmp_path):
        session = session.with_trace(trace)
    assert session.shown.name == "a-2"
    write_recorded(tmp_path, "b", "two", steps=0)
    read(tmp_path)
    assert listed(tmp_path)[1].shown.name == "b"


def test_outlines_are_read_once_while_a_trace_stays_as_it_is(tmp_path: Path) -> None:
    write_recorded(tmp_path, "old", "one", minute=0)
    path = write_recorded(tmp_path, "new", "two", minute=1, steps=5)
    assert [trace.name for trace in read(tmp_path)] == ["new", "old"]
    assert read(tmp_path) == []
    steps = [s.shown.outline.steps for s in listed(tmp_path) if s.shown.outline]
    assert steps == [5, 6]
    with path.open("ab") as file:
        file.write(b'{"kind":"rewind","to":1}\n')
    assert [trace.name for trace in read(tmp_path)] == ["new"]
    os.utime(path, ns=(0, 0))
    assert [trace.name for trace in read(tmp_path)] == ["new"]


def test_what_is_damaged_is_read_once_too(tmp_path: Path) -> None:
    path = write_recorded(tmp_path, "a")
    with path.open("ab") as file:
        file.write(b"nonsense\n")
    (trace,) = read(tmp_path)
    assert trace.problem.startswith(f"line 8 of {path} is damaged")
    assert read(tmp_path) == []
    assert listed(tmp_path)[0].shown.problem == trace.problem


def test_a_damaged_cache_is_filled_again(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a")
    read(tmp_path)
    cache = platformdirs.user_cache_path("prunetui") / FILE
    assert cache.exists()
    cache.write_bytes(b"{")
    assert [trace.name for trace in read(tmp_path)] == ["a"]
    assert read(tmp_path) == []


def test_files_that_are_no_traces_are_listed_with_what_is_wrong(tmp_path: Path) -> None:
    for name, content in [("text", b"hello"), ("cut", b'{"kind":"hea'), ("newer", b"")]:
        (tmp_path / f"{name}{SUFFIX}").write_bytes(content)
    (tmp_path / f"newer{SUFFIX}").write_bytes(b'{"kind":"header","version":9}\n')
    (tmp_path / f"folder{SUFFIX}").mkdir()
    (tmp_path / f"gone{SUFFIX}").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / f"pipe{SUFFIX}")
    (tmp_path / "prunetui.log").write_text("no trace")
    problems = {session.shown.name: session.shown.problem for session in listed(tmp_path)}
    assert {name: text.replace(f"{tmp_path}/", "") for name, text in problems.items()} == {
        "text": "text.trace.jsonl is not a prunetui trace; "
        "`prunetui record -o FILE.trace.jsonl` makes one",
        "cut": "cut.trace.jsonl is not a prunetui trace; "
        "`prunetui record -o FILE.trace.jsonl` makes one",
        "newer": "newer.trace.jsonl is a trace of version 9 and this prunetui reads up to "
        "version 1; install a newer prunetui",
        "folder": "folder.trace.jsonl is no file",
        "gone": "cannot read gone.trace.jsonl: No such file or directory",
        "pipe": "pipe.trace.jsonl is no file",
    }
    assert read(tmp_path) == []


@pytest.mark.parametrize("created", ["yesterday", "", "0001-01-01T00:00:00", "9999-12-31T23:59:59"])
def test_any_date_is_listed(created: str, tmp_path: Path) -> None:
    header = recorded_header(created=created)
    TraceWriter(tmp_path / f"a{SUFFIX}", header).close()
    write_recorded(tmp_path, "b", "other")
    assert sorted(names(listed(tmp_path))) == [["a"], ["b"]]


def test_an_absent_directory_has_no_sessions_and_a_file_is_none(tmp_path: Path) -> None:
    assert listed(tmp_path / "none") == []
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=f"cannot read {file}: Not a directory"):
        listed(file)


def test_words_are_looked_for_in_model_prompt_lanes_date_and_name(tmp_path: Path) -> None:
    write_recorded(tmp_path, "My-run", "one")
    (session,) = listed(tmp_path)
    date = f"{session.shown.began:%Y-%m-%d %H:%M}"
    for words in [["tiny"], ["these", "differ?"], ["drop:mlp=1"], date.split(), ["my-run"], []]:
        assert session.matching(words) == session
    assert session.matching(["tiny", "large"]) is None


def test_deleting_takes_the_vectors_along_and_nothing_else(tmp_path: Path) -> None:
    path = write_whole_trace(tmp_path)
    other = write_recorded(tmp_path, "wholesome")
    (trace,) = [s.shown for s in listed(tmp_path) if s.shown.path == path]
    assert trace.vector_bytes == sum(
        (tmp_path / f"whole.{space}.bin").stat().st_size for space in "hz"
    )
    delete_traces([trace])
    assert [*tmp_path.iterdir()] == [other]
    # Another program was faster.
    delete_traces([trace])


def test_what_is_being_recorded_is_never_deleted(tmp_path: Path) -> None:
    write_recorded(tmp_path, "a", "one", minute=0)
    writer = TraceWriter(tmp_path / f"a-2{SUFFIX}", recorded_header("one", minute=1))
    writer.write(make_step(0))
    (session,) = listed(tmp_path)
    assert [trace.being_written for trace in session.traces] == [True, False]
    with pytest.raises(UserError, match="a-2 is being recorded"):
        delete_traces(session.traces)
    writer.close()
    assert [*sorted(tmp_path.iterdir())] == [tmp_path / f"a-2{SUFFIX}", tmp_path / f"a{SUFFIX}"]
    # Where files have no locks, the session that lists them knows its own.
    (session,) = listed(tmp_path, recording=writer.path)
    with pytest.raises(UserError, match="a-2 is being recorded"):
        delete_traces(session.traces)
    delete_traces(listed(tmp_path)[0].traces)
    assert [*tmp_path.iterdir()] == []
