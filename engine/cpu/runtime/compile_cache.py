"""Compiled functions, cached on disk between sessions."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core import config

from ... import logit_sums
from ...disk_cache import cached
from ...errors import UserError

log = logging.getLogger(__name__)


def compile_cached(make: Callable[..., Any]) -> Any:
    """Call `make` with `cache=True` if numba's disk cache is usable; return the result."""
    directory = cache_directory()
    if directory:
        # Numba looks at the file of the function alone, not at those that it calls.
        config.CACHE_DIR = str(directory)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return make(cache=True)
        except Exception:  # the cached functions are damaged, or cannot be written
            log.warning("compiled functions in %s are of no use", directory, exc_info=True)
            shutil.rmtree(directory, ignore_errors=True)
    return make()


def cache_directory() -> Path | None:
    """The directory of what these sources were compiled to; None where nothing can be cached."""
    # The order of the sums is compiled too.
    sources = [*sorted(Path(__file__).parents[1].rglob("*.py")), Path(logit_sums.__file__)]
    try:
        return cached("kernels", [source.read_text("utf-8") for source in sources], lambda _: None)
    except UserError:
        return None
