"""Takes pictures of a report's page with headless Chromium, as wide as a screen or a phone, or as it prints.

    .venv/bin/python -m scripts.page_picture bench-results/report.html docs/images/load-report.png --height 900

Needs `chromium` on the PATH and nothing else: Debian's package of that name (`apt-get install chromium
fonts-dejavu-core`), in a throw-away container if you like. Nothing of this project uses it but this script.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_PIXELS = 16_000  # of one side; beyond it Chromium cuts
_SECONDS = 120.0
# A window of Chromium is never narrower than 500 px, a frame within it is as narrow as a phone.
_FRAME = """<!doctype html><meta charset="utf-8">
<style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<iframe width="{width}" height="{height}" scrolling="no" srcdoc="{page}"></iframe>
<script>
onload = () => {{ document.title = document.querySelector("iframe").contentDocument.documentElement.scrollHeight }}
</script>
"""
_HEIGHT = re.compile(r"<title>(\d+)</title>")


def main(
    page: Annotated[Path, typer.Argument(help="The report, an HTML file that needs nothing else.")],
    picture: Annotated[Path, typer.Argument(help="PNG to write; or PDF, the page as it prints.")],
    width: Annotated[int, typer.Option(min=100, max=4096, help="Of the page; a phone has 390.")] = 1120,
    height: Annotated[int, typer.Option(min=0, max=MOST_PIXELS, help="From its top; 0: all of it.")] = 0,
    scale: Annotated[float, typer.Option(min=0.5, max=4, help="Pixels of the picture per pixel.")] = 1.0,
    dark: Annotated[bool, typer.Option("--dark", help="As for one who asks for dark pages.")] = False,
) -> None:
    """Take one picture.

    Example: python -m scripts.page_picture bench-results/report.html phone.png --width 390
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(
            f"none of {', '.join(BROWSERS)} is on the PATH; Debian has it as the package chromium"
        )
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"the page cannot be read: {error}") from None
    with tempfile.TemporaryDirectory(prefix="hotswap-picture-") as folder:
        base = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        if picture.suffix == ".pdf":
            _run(
                [
                    *base,
                    "--no-pdf-header-footer",
                    f"--print-to-pdf={picture.resolve()}",
                    page.resolve().as_uri(),
                ]
            )
            return
        base += ["--hide-scrollbars", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        frame = Path(folder) / "frame.html"
        if not height:
            _frame(frame, text, width, 100)
            said = _HEIGHT.search(_run([*base, "--dump-dom", frame.as_uri()]))
            height = min(int(said.group(1)), MOST_PIXELS) if said else MOST_PIXELS
        _frame(frame, text, width, height)
        shot = [f"--window-size={width},{height}", f"--force-device-scale-factor={scale:g}"]
        _run([*base, *shot, f"--screenshot={picture.resolve()}", frame.as_uri()])
    print(f"{picture}: {width} x {height}", file=sys.stderr)


def _frame(path: Path, page: str, width: int, height: int) -> None:
    path.write_text(_FRAME.format(width=width, height=height, page=html.escape(page)), encoding="utf-8")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the browser took longer than {_SECONDS:g} s") from None
    if done.returncode != 0:
        raise SystemExit(f"the browser ended with exit code {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


if __name__ == "__main__":
    typer.run(main)
