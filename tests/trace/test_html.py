"""HTML export: one well-formed page, complete and safe."""

import shlex
from html.parser import HTMLParser

import msgspec
from prunetui.engine.options import Options
from prunetui.engine.trace.analysis.statistics import statistics
from prunetui.engine.trace.export.html import command, to_html

from ..support.traces import make_trace, with_local


class Page(HTMLParser):
    """Parser that collects attributes, the text, and tags left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: dict[str, set[str]] = {}
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    trace = with_local(make_trace(40))
    page = Page(to_html(trace))
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "style", "onclick", "onload"} & set(page.attributes)
    # Two variants, four measures.
    assert page.tags.count("svg") == 8
    assert page.tags.count("circle") == 8 * 40
    of = statistics(trace, 2)
    assert of.local is not None
    for value in (of.local.kld_mean, of.propagated.kld_max, of.local.ppl_ratio):
        assert f"{value:.5g}" in page.text


def test_hostile_text_stays_text() -> None:
    trace = make_trace(30)
    evil = "<script>alert(1)</script>\x1b]52;c;aGk=\x07"
    prompt = msgspec.structs.replace(trace.header.prompt, text=evil)
    lanes = [msgspec.structs.replace(lane, name=f"{evil}&amp;") for lane in trace.header.lanes]
    trace.header = msgspec.structs.replace(trace.header, prompt=prompt, lanes=lanes)
    written = to_html(trace)
    page = Page(written)
    assert "script" not in page.tags
    assert "\x1b" not in written
    assert "<script>alert(1)</script>" in page.text
    assert "</script>␛]52;c;aGk=␇&amp;" in page.text


def test_what_differs_is_marked() -> None:
    trace = make_trace(10)
    page = to_html(trace)
    # Lane 1 leaves the baseline at step 4, lane 2 at step 8.
    assert page.count('class="other first"') == 2
    assert page.count('class="other') == 6 + 2


def test_an_empty_trace_and_one_without_variants_have_a_page() -> None:
    for trace in (make_trace(0), make_trace(3, variants=0)):
        assert Page(to_html(trace)).open == []


def test_the_command_makes_it_again() -> None:
    options = Options(
        model="my model",
        variants=("drop:attn=[1,2]", "a b=wanda:0.5"),
        prompt="It's; `rm`",
        answers=(" A", " B"),
        raw=True,
        temperature=0.5,
    )
    assert shlex.split(command(options)) == [
        *("prunetui", "record", "--model", "my model"),
        *("--variant", "drop:attn=[1,2]", "--variant", "a b=wanda:0.5"),
        *("--prompt", "It's; `rm`", "--raw", "--temperature", "0.5", "--answers", " A, B"),
    ]
    assert command(Options()) == "prunetui record"
    # The baseline alone, which the screen can decode, would be the default variants.
    assert command(Options(variants=())) == "prunetui record --variant control"
