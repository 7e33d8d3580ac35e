"""From recorded figures to tables, verdicts, plots and pages."""

from __future__ import annotations

import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.errors import PlanError
from benchmarks.quantisation.by_hand import BEGIN, END
from benchmarks.quantisation.figures import SCHEMA
from benchmarks.quantisation.machine_tables import speed_table, tutorial_table
from benchmarks.quantisation.markdown import markdown
from benchmarks.quantisation.page import plots_of, render_page
from benchmarks.quantisation.plots import size_points, speed_points
from benchmarks.quantisation.publish import publish
from benchmarks.quantisation.report import Report
from benchmarks.quantisation.tables import report_tables
from benchmarks.quantisation.tutorials import CLAIMS
from benchmarks.quantisation.verdicts import verdicts
from benchmarks.surroundings import CHECKOUT
from tests.benchmarks.quantisation.example_report import (
    INT8,
    W4,
    example_report,
    machine_figures,
)


def table(report: Report, beginning: str):
    return next(one for one in report_tables(report) if one.title.startswith(beginning))


def column(found, heading: str) -> list[str]:
    place = found.headings.index(heading)
    return [row[place] for row in found.rows]


def test_the_document_goes_to_json_and_back():
    report = example_report()
    raw = report.model_dump_json()
    assert json.loads(raw)["schema_version"] == SCHEMA
    assert Report.model_validate_json(raw) == report


def test_every_table_has_as_many_cells_as_headings():
    tables = report_tables(example_report())
    assert len(tables) == 11
    for one in tables:
        assert all(len(row) == len(one.headings) for row in one.rows), one.title


def test_sizes_are_set_against_the_original():
    assert column(table(example_report(), "Size on disk"), "of the original") == ["1.00x", "0.31x", "0.25x"]


def test_memory_is_set_against_float32_without_the_kv_cache():
    found = table(example_report(), "Memory")
    assert column(found, "weights MiB") == ["500", "200", "150"]
    assert found.rows[2][2] == "0.30x"
    assert column(found, "whole server MiB") == ["1000", "700", "650"]
    assert found.rows[2][5] == "0.65x"


def test_ratios_of_speed_stand_with_their_spread_and_the_baseline_has_none():
    found = speed_table(machine_figures(), "")
    assert column(found, "of float32") == [
        "baseline",
        "1.10 (1.00 to 1.20)",
        "2.50 (2.40 to 2.60)",
        "baseline",
        "1.50 (1.40 to 1.60)",
    ]


def test_kept_accuracy_is_of_the_same_notes():
    found = table(example_report(), "Task accuracy with risk merged in")
    assert [row[2].split(" ")[0] for row in found.rows] == ["baseline", "88.9"]


def test_recovery_stands_in_a_table_of_its_own():
    found = table(example_report(), "What the recovery adapter brings")
    assert column(found, "form") == ["original", W4, f"{W4}+recovery"]
    assert W4 in column(table(example_report(), "Quality against"), "form")


def test_the_figures_of_tutorials_stand_beside_what_was_measured():
    found = tutorial_table(example_report(), machine_figures(), "")
    assert [(row[0], row[1], row[2], row[3], row[4]) for row in found.rows] == [
        ("INT8", "1.2 %", "0.50x", "2.3x", f"{INT8}/float32"),
        ("W4A16", "3.7 %", "0.25x", "4.1x", f"{W4}/float32"),
        ("GPTQ", "0.8 %", "0.30x", "3.8x", f"{W4}/float32"),
    ]
    w4 = found.rows[1]
    assert w4[5] == "+10.0 (of 10)"
    assert w4[6] == "+10.0 %"
    assert w4[7:9] == ("0.30x", "0.65x")
    assert w4[9].startswith("c=1: 2.50 (2.40 to 2.60)x; c=8: 1.50")


def test_what_tutorials_print_and_nobody_measured_is_called_so():
    bare = machine_figures().model_copy(update={"memory": machine_figures().memory[:1]})
    rows = tutorial_table(example_report(), bare, "").rows
    assert [row[4] for row in rows] == ["not measured"] * len(CLAIMS)


def test_a_promise_is_met_missed_or_undecided_on_a_busy_machine():
    report = example_report()
    words = {each.promise: each.word for each in verdicts(report, machine_figures())}
    assert words == {
        f"{INT8}/float32: at least 1.2x the tokens per second of float32 at concurrency 1": "MISSED",
        f"{W4}/float32: at least 2x the tokens per second of float32 at concurrency 1": "met",
        f"{W4}/float32: weights in memory at most 0.4x those of float32": "met",
        f"{W4}/float32 with recovered: keeps at least 99% of the accuracy": "met",
    }
    busy = {each.promise: each.word for each in verdicts(report, machine_figures(noisy=3))}
    assert busy[f"{W4}/float32: at least 2x the tokens per second of float32 at concurrency 1"] == "undecided"


def test_plots_have_a_point_for_every_quantised_form_and_cell():
    report = example_report()
    assert [(point.label, point.x, point.y) for point in size_points(report)] == [
        ("original", 512.0, 0.0),
        (INT8, 160.0, 0.01),
        (W4, 128.0, 0.1),
    ]
    assert [(point.group, point.label, point.x) for point in speed_points(report, machine_figures())] == [
        (f"{INT8}, float32", "c=1", 1.1),
        (f"{W4}, float32", "c=1", 2.5),
        (f"{W4}, float32", "c=8", 1.5),
    ]


def test_plots_are_well_formed_take_the_pages_colours_and_share_no_names():
    plots = plots_of(example_report(machines={"native": machine_figures(), "avx2": machine_figures()}))
    assert [plot.title for plot in plots] == [
        "Quality against size",
        "Quality against speed (native)",
        "Quality against speed (avx2)",
    ]
    names: list[str] = []
    for plot in plots:
        tree = ElementTree.fromstring(plot.svg)
        assert tree.attrib["viewBox"]
        names += [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
        for used in re.findall(r'(?:href="#|url\(#)([^")]+)', plot.svg):
            assert f'id="{used}"' in plot.svg
        assert "currentColor" in plot.svg
        assert "nats per token" in plot.svg
    assert len(names) == len(set(names)) > 20


def test_a_report_without_quality_has_no_plots_and_is_still_a_page():
    page = render_page(example_report(quality={}, texts={}))
    assert "<svg" not in page
    assert "Memory at serve time" in page


class Page(HTMLParser):
    """What a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")
        ]


def test_the_page_needs_nothing_but_itself_and_escapes_what_models_said():
    page = render_page(example_report())
    seen = Page()
    seen.feed(page)
    assert all(address.startswith("#") for address in seen.addresses)
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "<b>Risk" not in page
    assert "&lt;b&gt;Risk: 0" in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_markdown_tells_of_the_four_bit_grid_and_keeps_bars_out_of_cells():
    text = markdown(example_report())
    assert "came from 4-bit weights" in " ".join(text.split())
    assert "Note: a note" in text
    assert "| NO | <b>Risk: 0</b> \\| x |" in text
    assert "**A quick try" not in text
    assert "**A quick try" in markdown(example_report(quick=True))


def test_two_machines_have_their_own_tables():
    titles = [
        one.title
        for one in report_tables(
            example_report(machines={"native": machine_figures(), "avx2": machine_figures()})
        )
    ]
    assert {"Speed (native)", "Speed (avx2)"} <= set(titles)


@pytest.mark.parametrize("name", ["report.html", "elsewhere/report.html"])
def test_three_files_are_written(name, tmp_path):
    paths = publish(example_report(), tmp_path / name)
    assert [path.suffix for path in paths] == [".html", ".md", ".json"]
    assert Report.model_validate_json(paths[2].read_text()) == example_report()


def test_the_published_page_keeps_its_part_by_hand_when_it_is_made_anew(tmp_path):
    page = tmp_path / "report.html"
    old = (CHECKOUT / "docs" / "quantisation-report.md").read_text()
    page.with_suffix(".md").write_text(old)
    figures = (CHECKOUT / "docs" / "quantisation-report.json").read_text()
    publish(Report.model_validate_json(figures), page)
    new = page.with_suffix(".md").read_text()
    by_hand = old[old.index(BEGIN) : old.index(END)]
    assert "## The output layer in 8 bits" in by_hand
    assert new.count(by_hand) == 1
    headings = [line for line in new.splitlines() if line.startswith("## ")]
    assert headings == [line for line in old.splitlines() if line.startswith("## ")]


def test_a_part_by_hand_stays_behind_its_section_or_goes_to_the_end(tmp_path):
    page = tmp_path / "report.html"
    document = publish(example_report(), page)[1]
    made = document.read_text()
    size = "## Size on disk\n"
    mine = f"{BEGIN}\nMeasured by me.\n{END}\n"
    document.write_text(made.replace(size, f"{size}\n{mine}\n") + f"\n## Of old\n\n{mine}")
    for _ in range(2):
        publish(example_report(), page)
        text = document.read_text()
        assert text.count("Measured by me.") == 2
        assert text.index(size) < text.index("Measured") < text.index("## Quality against the original")
        assert text.endswith(mine)
    assert "Of old" not in text
    assert text.replace(f"{mine}\n", "").replace(mine, "").rstrip() == made.rstrip()


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        (f"# A\n{BEGIN}\nmine\n", "does not end"),
        (f"# A\nmine\n{END}\n", r"report.md:3: .* ends nothing"),
        (f"{BEGIN}\nmine\n{BEGIN}\n{END}\n", r"report.md:3: .* within another"),
    ],
)
def test_marks_that_are_no_pair_are_refused_before_anything_is_replaced(old, wanted, tmp_path):
    (tmp_path / "report.md").write_text(old)
    with pytest.raises(PlanError, match=wanted):
        publish(example_report(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == old


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    publish(example_report(), page)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PlanError, match="No space left on device; name another place"):
        publish(example_report(quick=True), page)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
