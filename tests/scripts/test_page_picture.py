"""Pictures of a page: what the browser is asked for. A browser itself is not needed."""

from __future__ import annotations

import sys

import pytest
import typer
from typer.testing import CliRunner

from scripts import page_picture

BROWSER = f"""#!{sys.executable}
import pathlib, sys
options = dict(part.partition("=")[::2] for part in sys.argv[1:-1])
pathlib.Path(__file__).with_name("asked.txt").open("a").write(" ".join(sys.argv[1:]) + "\\n")
frame = pathlib.Path(sys.argv[-1].removeprefix("file://")).read_text()
if "--dump-dom" in options:
    print("<html><head><title>1234</title></head></html>")
for name in ("--screenshot", "--print-to-pdf"):
    if name in options:
        pathlib.Path(options[name]).write_text(frame)
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    browser = folder / "chromium"
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    (tmp_path / "page.html").write_text('<p class="a">hello</p>')
    return folder / "asked.txt"


def take(tmp_path, *given):
    app = typer.Typer()
    app.command()(page_picture.main)
    return CliRunner().invoke(app, [str(tmp_path / "page.html"), *given])


def test_a_picture_is_as_wide_as_a_phone_and_as_high_as_the_page(tmp_path, asked):
    done = take(tmp_path, str(tmp_path / "phone.png"), "--width", "390")
    assert done.exit_code == 0, done.output
    assert "--window-size=390,1234" in asked.read_text().splitlines()[-1]
    frame = (tmp_path / "phone.png").read_text()
    assert 'width="390" height="1234"' in frame
    assert "&lt;p class=&quot;a&quot;&gt;hello&lt;/p&gt;" in frame


def test_a_height_that_is_given_needs_no_second_look(tmp_path, asked):
    assert take(tmp_path, str(tmp_path / "top.png"), "--height", "900").exit_code == 0
    (only,) = asked.read_text().splitlines()
    assert "--window-size=1120,900" in only


def test_a_pdf_is_the_page_itself(tmp_path, asked):
    assert take(tmp_path, str(tmp_path / "page.pdf")).exit_code == 0
    assert (tmp_path / "page.pdf").read_text() == '<p class="a">hello</p>'
    assert len(asked.read_text().splitlines()) == 1


def test_a_machine_without_a_browser_is_told_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = take(tmp_path, str(tmp_path / "x.png"))
    assert done.exit_code == 1
    assert "Debian has it as the package chromium" in str(done.exception) + done.output
