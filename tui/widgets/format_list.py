"""List of export formats, chosen with the arrows or by a letter each."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets.option_list import Option

from .choices import Choices

DESCRIPTIONS = {
    "csv": "a row a step and lane, for a spreadsheet",
    "parquet": "the same rows, for pandas or polars",
    "json": "the header and every step, as recorded",
    "md": "a report as text, for notes or an issue",
    "html": "a report with charts, for a browser",
    "svg": "this screen as a picture",
}
"""What each format is good for; its first letter chooses it."""


class FormatList(Choices):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(name[0], f"choose('{name}')", name, show=False) for name in DESCRIPTIONS
    ]

    def __init__(self, formats: Iterable[str], chosen: str) -> None:
        """`chosen` is one of the formats, all of which have a description."""
        self._formats = [*formats]
        super().__init__(*(Option(_line(name), id=name) for name in self._formats), compact=True)
        self.highlighted = self._formats.index(chosen)

    @property
    def chosen(self) -> str:
        return self._formats[self.highlighted or 0]

    def action_choose(self, name: str) -> None:
        self.highlighted = self._formats.index(name)


def _line(name: str) -> Content:
    return Content.assemble((name[0], "bold underline"), f"{name[1:]:<9}", DESCRIPTIONS[name])
