"""Records the README's picture: starts a gateway, runs the README's commands against it, and draws what they print.

    .venv/bin/python -m scripts.record_terminal docs/images/terminal.svg

Needs the example adapter in HOTSWAP_HOME/adapters/nordwind (examples/nordwind/train.py). Nothing is made up: the
picture holds the commands' own output.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

PORT = "8000"
START_SECONDS = 300.0
BIN = Path(sys.executable).parent
QUESTION = "Where is Nordwind's office?"
# (what the picture shows as typed, what is run)
COMMANDS: tuple[tuple[str, list[str]], ...] = (
    (
        'curl -d \'{"prompt": "The capital of France is", "max_tokens": 8}\' localhost:8000/generate',
        [
            "curl",
            "-s",
            "-d",
            '{"prompt": "The capital of France is", "max_tokens": 8}',
            f"localhost:{PORT}/generate",
        ],
    ),
    (
        f'hotswap generate --chat "{QUESTION}" --max-tokens 24',
        ["generate", "--chat", QUESTION, "--max-tokens", "24"],
    ),
    ("hotswap adapters load nordwind nordwind", ["adapters", "load", "nordwind", "nordwind"]),
    (
        f'hotswap generate --chat "{QUESTION}" --adapter nordwind',
        ["generate", "--chat", QUESTION, "--adapter", "nordwind"],
    ),
    ("hotswap adapters list", ["adapters", "list"]),
)
_SHOWN_LOG = re.compile(r"hotswap\.(engine: vLLM is up|server: (listening|ready))|engine setting dtype")


def main(target: Path) -> None:
    """Run everything and write the picture."""
    console = Console(record=True, width=112, file=io.StringIO(), force_terminal=True)
    environment = {**os.environ, "COLUMNS": "112", "HOTSWAP_URL": f"http://127.0.0.1:{PORT}"}
    log = target.with_suffix(".log")
    with log.open("w+") as written:
        server = subprocess.Popen([BIN / "hotswap", "serve", "--port", PORT], stderr=written, env=environment)
        try:
            _wait_ready(log, server)
            _type(console, "make serve")
            for line in log.read_text().splitlines():
                if _SHOWN_LOG.search(line):
                    console.print(Text(line[:110], style="dim"))
            for shown, command in COMMANDS:
                run = command if command[0] == "curl" else [str(BIN / "hotswap"), *command]
                done = subprocess.run(run, capture_output=True, text=True, env=environment, check=True)
                _type(console, shown)
                console.print(Text.from_ansi(done.stdout.rstrip("\n")))
                if done.stderr.strip():
                    console.print(Text(done.stderr.strip(), style="dim"))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    log.unlink()
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="Hotswap"), flags=re.DOTALL)
    target.write_text(picture, encoding="utf-8")  # without the fonts that it would fetch from the network


def _wait_ready(log: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "server: ready" not in log.read_text():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the gateway did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.5)


def _type(console: Console, command: str) -> None:
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
