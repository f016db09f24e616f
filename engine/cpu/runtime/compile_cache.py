"""What was compiled, kept between sessions."""

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


def kept(make: Callable[..., Any]) -> Any:
    """What a function compiles, which is given `cache=True` for Numba if it can be kept."""
    place = _place()
    if place:
        # Numba looks at the file of the function alone, not at those that it calls.
        config.CACHE_DIR = str(place)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            return make(cache=True)
        except Exception:  # what is kept there is damaged, or cannot be written to
            log.warning("compiled functions in %s are of no use", place, exc_info=True)
            shutil.rmtree(place, ignore_errors=True)
    return make()


def _place() -> Path | None:
    """The directory of what these sources were compiled to; None where nothing can be kept."""
    # The order of the sums is compiled too.
    sources = [*sorted(Path(__file__).parents[1].rglob("*.py")), Path(logit_sums.__file__)]
    try:
        return cached("kernels", [source.read_text("utf-8") for source in sources], lambda _: None)
    except UserError:
        return None
