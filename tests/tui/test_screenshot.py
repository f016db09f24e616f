"""The screen as SVG, as librsvg draws it."""

import re
import shutil
import subprocess

import pytest

from ..support.screens import replay, settle

BLANK = "\N{NO-BREAK SPACE}"
CELL = 12
"""Width in pixels of a character of 20 pixels, at least."""


async def screenshot() -> str:
    app = replay()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        return app.export_screenshot()


async def test_blanks_at_the_start_of_a_text_are_kept() -> None:
    assert (await screenshot()).startswith('<svg xml:space="preserve" class="rich-terminal" ')


@pytest.mark.skipif(not shutil.which("rsvg-convert"), reason="draws with rsvg-convert")
async def test_librsvg_draws_a_name_in_its_column() -> None:
    svg = await screenshot()
    root = svg[: svg.index(">") + 1]
    x, text = re.findall(r'<text class="[\w-]+" x="([\d.]+)"[^>]*>((?:&#160;)+baseline)', svg)[0]
    font = 'font-family="monospace" font-size="20"'
    picture = f'{root}<text {font} x="{x}" y="20">{text.replace("&#160;", BLANK)}</text></svg>'
    drawn = subprocess.run(
        ["rsvg-convert", "--format=svg"], input=picture.encode(), capture_output=True, check=True
    ).stdout.decode()
    (outlines,) = re.findall(r' d="M ([^"]*)"', drawn)
    left = float(x) + text.count("&#160;") * CELL
    assert left < float(outlines.split()[0]) < left + CELL
