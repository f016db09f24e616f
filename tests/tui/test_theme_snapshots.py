"""The screen in the themes that have more than colours of their own, as last approved."""

import pytest
from textual.pilot import Pilot

from ..support.screens import replay, settle
from ..support.traces import make_trace


@pytest.mark.parametrize("theme", ["high-contrast", "okabe-ito", "ansi", "mono"])
def test_the_overview(theme: str, snap_compare) -> None:
    async def go_back(pilot: Pilot[None]) -> None:
        await pilot.press(*["left"] * 10)
        await settle(pilot)

    app = replay(make_trace(40), theme=theme)
    assert snap_compare(app, terminal_size=(80, 24), run_before=go_back)
