"""Evaluation files: append items chunk by chunk, go on after a stop, follow a file that grows."""

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import UserError, reason
from ..files import PRIVATE, make_private_directory, open_new
from ..output_files import write_all
from ..trace.file import DAMAGE, Preamble
from ..trace.records import MAX_LANES
from .records import SUFFIX, VERSION, End, Header, Item, Line
from .results import Results


class ResultsWriter:
    """Writer of an evaluation file; lines are with the operating system when `write` returns.

    Where the file system has locks, no other process can go on with the file until it is closed.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Create the file with its header. Raises `OSError` if it exists or cannot be written."""
        make_private_directory(path.parent)
        self._take(path, open_new(path, PRIVATE))
        self.write([header])

    @classmethod
    def resume(cls, path: Path) -> tuple["ResultsWriter", Results]:
        """Writer that goes on at the end of a file, and what is in the file.

        A last line that is not whole is cut off. Raises `UserError` if the file cannot be written,
        another process writes it, or as `read_results` does; the file is then left as it was.
        """
        try:
            file = open(path, "r+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write {path}: {reason(error)}") from error
        writer = cls.__new__(cls)
        try:
            cls._take(writer, path, file)
            follower = ResultsFollower(path)
            file.truncate(follower.end)
            file.seek(follower.end)
        except (OSError, UserError) as error:
            file.close()
            if isinstance(error, BlockingIOError):
                sentence = f"another process writes {path}; stop it, or wait until it is done"
                raise UserError(sentence) from error
            if isinstance(error, OSError):
                raise UserError(f"cannot write {path}: {reason(error)}") from error
            raise
        return writer, follower.results

    def write(self, lines: Sequence[Header | Line]) -> None:
        """Append lines in one write. After an `OSError` the file may end in a part of them."""
        write_all(self._file, b"".join(self._encoder.encode(line) + b"\n" for line in lines))

    def close(self) -> None:
        self._file.close()

    def _take(self, path: Path, file: BinaryIO) -> None:
        """Write to a file from here on. Raises `BlockingIOError` if another process does."""
        self.path = path
        self._file = file
        self._encoder = msgspec.json.Encoder()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            # Not every file system has locks.
            return


class ResultsFollower:
    """Reader of an evaluation file that may still grow."""

    def __init__(self, path: Path) -> None:
        """Read what is in the file by now. Raises `UserError` as `read_results` does."""
        self.path = path
        self.end = 0
        """Bytes read, up to the end of the last whole line."""
        self._number = 0
        self._decoder = msgspec.json.Decoder(Line)
        self.results: Results
        self.poll()

    def poll(self) -> bool:
        """Add to `results` what was appended since; return whether that was anything.

        A last line that is not whole is left for later. Raises `UserError` as `read_results` does,
        or if the file has become shorter.
        """
        before = self.end
        try:
            with self.path.open("rb") as file:
                self._read(file)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {reason(error)}") from error
        return self.end > before

    def _read(self, file: BinaryIO) -> None:
        if self.end:
            if file.seek(0, 2) < self.end:
                raise UserError(f"{self.path} has become shorter; open it again")
            file.seek(self.end)
        else:
            line = file.readline()
            self.results = Results(_parse_header(self.path, line))
            self._count(line)
        for line in file:
            # A whole line ends in a newline.
            if not line.endswith(b"\n"):
                break
            try:
                _add(self.results, self._decoder.decode(line))
            except DAMAGE as error:
                raise UserError(
                    f"line {self._number + 1} of {self.path} is damaged ({error}); "
                    f"`head -n {self._number}` of it is an evaluation that can go on"
                ) from error
            self._count(line)

    def _count(self, line: bytes) -> None:
        self.end += len(line)
        self._number += 1


def read_results(path: Path) -> Results:
    """Read an evaluation file; a last line that is not whole is taken as the end.

    Raises `UserError` if the file cannot be read, is no evaluation, was made by a newer version,
    or is damaged before its last line: also by items that are out of order or twice there.
    """
    return ResultsFollower(path).results


def is_evaluation(path: Path) -> bool:
    """Whether a file's first line is that of an evaluation; false if it cannot be told."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(), type=Preamble).kind == "evaluation"
    except (OSError, *DAMAGE):
        return False


def _parse_header(path: Path, line: bytes) -> Header:
    try:
        preamble = msgspec.json.decode(line, type=Preamble)
    except DAMAGE as error:
        raise UserError(
            f"{path} is no evaluation; `prunetui eval -o FILE{SUFFIX}` makes one"
        ) from error
    if preamble.kind == "header":
        raise UserError(f"{path} is a trace; `prunetui replay` opens it")
    if preamble.kind != "evaluation":
        raise UserError(f"{path} is not a whole evaluation: its first line is no header")
    if preamble.version > VERSION:
        raise UserError(
            f"{path} is an evaluation of version {preamble.version} and this prunetui reads up to "
            f"version {VERSION}; install a newer prunetui"
        )
    try:
        if not line.endswith(b"\n"):
            raise ValueError("it is cut short")
        header = msgspec.json.decode(line, type=Header)
        _check_header(header)
    except DAMAGE as error:
        raise UserError(f"the header of {path} is damaged ({error})") from error
    return header


def _check_header(header: Header) -> None:
    """Raise `ValueError` unless there are lanes, all described, and tasks of different names."""
    if not 0 < len(header.lanes) <= MAX_LANES:
        raise ValueError(
            f"it names {len(header.lanes)} lanes, and an evaluation has 1 to {MAX_LANES}"
        )
    if len(header.fingerprints) != len(header.lanes):
        raise ValueError("its fingerprints do not fit its lanes")
    names = [task.name for task in header.tasks]
    if len({*names}) < len(names):
        raise ValueError("it names a task twice")


def _add(results: Results, line: Line) -> None:
    """Add a line. Raises `ValueError` if it does not fit what is there."""
    name, lanes = line.task, len(results.header.lanes)
    task = next((task for task in results.header.tasks if task.name == name), None)
    if task is None:
        raise ValueError("its task is not in the header")
    if name in results.ends:
        raise ValueError("its task has ended before")
    count = len(results.items.get(name, []))
    if isinstance(line, End):
        if count != task.items:
            raise ValueError(f"it ends a task of {task.items} items after {count}")
        if len(line.scores) != lanes:
            raise ValueError("its lists do not fit the header's lanes")
        results.ends[name] = line
        return
    if line.index != count or count >= task.items:
        raise ValueError(
            f"it is item {line.index} where item {count} of {task.items} is due, counted from 0"
        )
    _check_item(line, lanes)
    results.items.setdefault(name, []).append(line)


def _check_item(item: Item, lanes: int) -> None:
    """Raise `ValueError` unless lists and indices fit lanes, options and contexts, and scores fit
    a float."""
    options = len(item.options)
    if not (
        len(item.answers) == lanes
        and len(item.drift) in (0, lanes - 1)
        and (item.gold_option is None or item.gold_option < options)
        and all(option.context < len(item.contexts) for option in item.options)
        and all(len(answer.logprobs) in (0, options) for answer in item.answers)
        and all(len(answer.greedy) in (0, options) for answer in item.answers)
        and all(answer.option is None or answer.option < options for answer in item.answers)
    ):
        raise ValueError("its lists do not fit the header's lanes and its own options")
    numbers = [value for answer in item.answers for value in answer.scores.values()]
    if any(isinstance(number, int) and abs(number) > 2**53 for number in numbers):
        raise ValueError("a score is too large")
