"""The table that `record` prints, in terminals of any width."""

import msgspec
import pytest
from prunetui.engine.trace.analysis.summary import VariantSummary, summarize
from prunetui.engine.trace.export.summary_table import SUMMARY_COLUMNS, summary_cells
from prunetui.tui.cli.record_table import table_lines
from rich.cells import cell_len

from ..support.traces import make_trace, part_broken

LONG = "drop:attn=[0,2,4,6,8]+drop:mlp=[1,3,5]+wanda:0.5+sparsegpt:2:4"
WIDTHS = [40, 60, 80, 120]


def named(*names: str) -> list[VariantSummary]:
    variants = summarize(make_trace(20, variants=len(names)))
    return [
        msgspec.structs.replace(variant, name=name)
        for variant, name in zip(variants, names, strict=True)
    ]


@pytest.mark.parametrize("width", [*WIDTHS, 30, 64, 65, 66])
@pytest.mark.parametrize("names", [("a", "b"), (LONG, "漢字の名前"), ("drop:attn=1", LONG)])
def test_nothing_is_cut_or_wrapped(width: int, names: tuple[str, str]) -> None:
    variants = named(*names)
    lines = table_lines(variants, width)
    # The name of a variant is a word that stands by itself; the terminal wraps it.
    assert all(cell_len(line) <= width for line in lines if line not in names)
    words = [word for line in lines for word in line.split()]
    for variant in variants:
        assert variant.name in words
        for cell in summary_cells(variant):
            assert cell in words or cell == "–"
    text = "\n".join(lines)
    assert "…" not in text
    for head in SUMMARY_COLUMNS[1:]:
        assert head in text


def test_the_name_stands_beside_the_figures_where_there_is_room() -> None:
    side = table_lines(named("drop:attn=1", "b"), 100)
    assert [line.split()[0] for line in side] == ["variant", "─" * len(side[0]), "drop:attn=1", "b"]
    above = table_lines(named(LONG, "b"), 80)
    assert [above[2], above[4]] == [LONG, "b"]
    # Figures stand below their heads, one variant's below the other's.
    assert len(above[0]) == len(above[3]) == len(above[5]) == 75
    narrow = table_lines(named(LONG, "b"), 40)
    assert narrow[0] == LONG
    assert narrow[1].startswith("  first ≠ 4  share ≠ 80.0%")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_variant_of_no_numbers_says_so_below_its_crosses(width: int) -> None:
    lines = table_lines(summarize(part_broken(5, tuple(range(5)))), width)
    at = next(n for n, line in enumerate(lines) if "not numbers" in line)
    note = " ".join(" ".join(lines[at : at + 3]).split())
    assert note.startswith("not numbers at 5 of 5 steps, which have no measures")
    before = " ".join(lines[:at])
    assert before.count("×") == 6
    part = " ".join(" ".join(table_lines(summarize(part_broken()), width)).split())
    assert "not numbers at 3 of 10 steps, which are left out of its means" in part
    assert "×" not in part
