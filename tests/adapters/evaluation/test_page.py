"""The page: whatever the data say, it is text; and nothing in it leads outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from adapters.evaluation.evaluate import evaluate
from adapters.evaluation.page import cells_of, histogram, render_page
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.report import Lengths
from tests.adapters.evaluation.conftest import ScriptedAnswerer, chat, no_stage
from tests.adapters.evaluation.test_report import make_report

HOSTILE = (
    '</dd><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'
    "<style>@import url(http://evil.example)</style>{{ 7 * 7 }}{% raw %}&lt;b&gt; \"'><a href=javascript:alert(1)>"
)
VOID = {"meta", "br", "rect"}


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text outside of <style>; checks that tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or (tag == "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def hostile_page() -> str:
    example = chat(f"asked {HOSTILE}", f"wanted {HOSTILE}", label=f"label {HOSTILE}")
    report = evaluate(
        [example, chat("b", "c", label="c")],
        base=ScriptedAnswerer(lambda _: f"base {HOSTILE}", name=f"name {HOSTILE}"),
        adapter=ScriptedAnswerer(lambda _: f"said {HOSTILE}", name=f"adapter {HOSTILE}"),
        plan=EvaluationPlan(bootstrap_samples=100),
        facts=[(f"fact {HOSTILE}", f"value {HOSTILE}")],
        stage=no_stage,
    )
    return render_page(report)


def test_hostile_texts_stay_texts():
    page = hostile_page()
    reader = Reader(page)
    assert reader.open == []
    for text in ("asked", "wanted", "label", "base", "said", "name", "adapter", "fact", "value"):
        assert f"{text} {HOSTILE}" in reader.text or (text == "label" and HOSTILE in reader.text)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "img", "a", "link", "iframe", "object", "base", "form"}
    assert [tag for tag, _ in reader.tags].count("style") == 1


def test_the_page_refers_to_nothing_outside_and_forbids_it():
    reader = Reader(render_page(make_report()))
    for _, attributes in reader.tags:
        assert not set(attributes) & {"src", "href", "srcset", "action", "data", "background", "poster"}
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", render_page(make_report()), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(a for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_shows_figures_matrix_bars_lengths_mistakes_and_facts():
    page = render_page(make_report(say=lambda _: "Risk: 0"))
    text = " ".join(Reader(page).text.split())
    for part in ("Accuracy", "16.7 %", "true label down", "F1 of each label", "Length of the answers"):
        assert part in text
    for part in ("Missed", "Off by one", "held-out.jsonl", "risk@1", "Perplexity, base"):
        assert part in text
    assert page.count("<rect") == 3


def test_a_report_without_labels_or_questions_is_a_page_too():
    report = evaluate(
        [chat("a", "b")],
        base=None,
        adapter=ScriptedAnswerer(lambda _: ""),
        plan=EvaluationPlan(bootstrap_samples=100),
        stage=no_stage,
    )
    text = Reader(render_page(report)).text
    assert "Empty" in text
    assert "(empty)" in text
    assert "true label down" not in text


def test_cells_have_the_share_of_their_row():
    matrix = make_report().confusions[0]
    cells = cells_of(matrix)
    assert [cell.share for cell in cells[0]] == [0, 0, 0, 0, 0, 1.0, 0]
    assert [cell.diagonal for cell in cells[5]] == [False] * 5 + [True, False]


def test_bars_are_as_high_as_their_share_of_the_tallest():
    bars = histogram(Lengths(edges=(0, 10, 20), reference=(2, 4), base=(0, 0), adapter=(1, 0)))
    assert set(bars) == {"reference", "adapter"}
    assert [bar.height for bar in bars["reference"]] == [60, 120]
    assert bars["adapter"][0].height == 30
    assert bars["reference"][1].title == "reference: 4 of 10 and more characters"
