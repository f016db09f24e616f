"""List of options to choose from."""

from textual.widgets import OptionList


class Choices(OptionList):
    """List that bears keys before it is laid out, where Textual's own raises `KeyError`."""

    def action_page_up(self) -> None:
        if self.scrollable_content_region:
            super().action_page_up()

    def action_page_down(self) -> None:
        if self.scrollable_content_region:
            super().action_page_down()
