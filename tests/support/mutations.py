"""Random damage to files of JSON lines."""

import json
import random
from collections.abc import Iterator
from typing import Any

BYTES = [b"", b"\n", b"\x00", b"\xff", b"\xc3", b'"', b"{", b"]", b",", b"-", b"9" * 30, b"null"]
BYTES += [b"\xed\xa0\x80", b"1e308", b"\\ud800", b"[" * 2000, b"\xef\xbb\xbf"]


def with_other_bytes(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(content):
            content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + rng.choice(BYTES) + content[at:]
        elif kind == 2:
            content = content[:at] + content[at + rng.choice([1, 2, 20, 4000]) :]
        else:
            content = content[:at] + content[at // 2 : at] + content[at:]
    return content


NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    9,
    63,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(2**63),
    -(10**30),
]
NUMBERS += [0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 5e-324, 1e-30, 1e30, 1e154, 1e200, 1e308, -1e308]
NUMBERS += [1.7976931348623157e308, -1.7976931348623157e308, 1e15, -745.2, 709.9, 1e4]
TEXTS = [
    "",
    " ",
    "\x1b]52;c;aGk=\x07",
    "\n\n\n",
    "=1+1",
    "[red]",
    "</pre><script>",
    "漢字" * 30,
    "\u202e",
]
TEXTS += [
    "x" * 3000,
    "e\u0301" * 50,
    "`" * 40,
    "|",
    "free",
    "forced",
    "both",
    "\x00",
    "\U0001f469\u200d",
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of a container and one of its keys, at every depth."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def with_other_values(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines()
    for _ in range(rng.choice([1, 1, 2, 5])):
        line = rng.randrange(len(lines))
        record = json.loads(lines[line])
        where, key = rng.choice([*places(record)])
        before = where[key]
        kind = rng.randrange(8)
        if kind == 0 and isinstance(where, dict):
            del where[key]
        elif kind == 1 and isinstance(where, list):
            where.insert(key, before) if rng.random() < 0.5 else where.pop(key)
        elif kind == 2 and isinstance(before, list):
            where[key] = rng.choice(
                [[], before * 2, before[:1], before[::-1], [None] * len(before)]
            )
        elif isinstance(before, bool):
            where[key] = not before
        elif isinstance(before, int | float) or kind == 3:
            where[key] = rng.choice([*NUMBERS, None])
        elif isinstance(before, str):
            where[key] = rng.choice(TEXTS)
        else:
            where[key] = rng.choice([None, rng.choice(NUMBERS), rng.choice(TEXTS), {}, []])
        lines[line] = json.dumps(record).encode()
    return b"\n".join(lines) + b"\n"


MUTATIONS = {"bytes": with_other_bytes, "values": with_other_values}
