import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from filelock import FileLock
from prunetui.tui.user.connection import MULTIPLEXERS
from textual._styles_cache import StylesCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

# Nothing in a test comes from a hub; set before anything imports huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _own_directories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the user's state, settings and rankings out of the tests, and the tests out of them.

    Tests that would be slow without it use the user's cache.
    """
    patch = request.getfixturevalue("monkeypatch")
    home = tmp_path_factory.mktemp("home")
    patch.setenv("XDG_STATE_HOME", str(home / "state"))
    patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in ("SSH_CONNECTION", *MULTIPLEXERS):
        patch.delenv(name, raising=False)
    if request.node.get_closest_marker("user_cache") is None:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture(autouse=True)
def _what_was_drawn_is_freed() -> Iterator[None]:
    """Free the widgets that Textual's cache of colours keeps, and with them all their lines."""
    yield
    StylesCache.get_inner_outer.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _no_timing() -> Iterator[None]:
    """Let no timing choose a way to compute: sessions are compared to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunetui.engine.cpu.attention.plainly_faster", lambda *_: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_driver_without_torch_for_it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide a driver that the installed torch does not use: each session would have a note on it."""
    with pytest.MonkeyPatch.context() as patch:
        hidden = tmp_path_factory.getbasetemp() / "no driver"
        patch.setattr("prunetui.engine.model.device.KERNEL_DRIVER", hidden)
        yield


@pytest.fixture(autouse=True, scope="session")
def _memory_is_read_for_a_moment() -> Iterator[None]:
    """Shorten the measurement of the bandwidth, a quarter of a second of every session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunetui.engine.decode.bandwidth.BLOCK", 1 << 20)
        yield


@pytest.fixture(autouse=True, scope="session")
def _kernels_are_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile kernels in one worker at a time, into the user's cache: in a test's own they would be
    compiled for each test."""
    # Here and not above: the process that starts the workers needs no torch.
    import torch
    from prunetui.engine.cpu.backend import CPU, backend_for

    if backend_for(CPU, torch.float32) is None:
        yield
        return
    from prunetui.engine.cpu.runtime import compile_cache, interpreter

    directory, compile_or_load = compile_cache.cache_directory(), compile_cache.compile_cached
    lock = FileLock(tmp_path_factory.getbasetemp().parent / "kernels.lock")

    def one_by_one(make: Callable[..., Any]) -> Any:
        with lock:
            return compile_or_load(make)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_cache, "cache_directory", lambda: directory)
        patch.setattr(interpreter, "compile_cached", one_by_one)
        yield


@pytest.fixture(autouse=True, scope="session")
def _what_is_imported_is_no_garbage(_kernels_are_compiled_once: None) -> None:
    """Spare collections of garbage the search of all that torch and transformers define."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _style_sheets_are_parsed_once() -> Iterator[None]:
    """Parse each style sheet once in a worker, and not again for each application."""
    parse, parsed = Stylesheet._parse_rules, {}  # noqa: SLF001

    def parse_once(sheet: Stylesheet, css: str, **where: Any) -> list[RuleSet]:
        key = (css, *where.items(), *sheet._variables.items())  # noqa: SLF001
        if key not in parsed:
            parsed[key] = parse(sheet, css, **where)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parse_once)
        yield
