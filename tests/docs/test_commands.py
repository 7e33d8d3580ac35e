"""Every command that a page shows is one that the programs take."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.command_line import WrongCommandError, leaves, read_hotswap, read_module
from tests.docs.page import PROJECT, Page, pages
from tests.docs.shell import Command, commands_of, mentions_of, parse

PAGES = pages()
COMMANDS = [command for page in PAGES for command in commands_of(page)]
MENTIONS = [
    command
    for page in PAGES
    for command in mentions_of(page, "hotswap", "python", "make", "docker", "kubectl")
]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
# Programs whose own syntax is not looked at here; curl has test_requests.py.
OTHERS = {"alias", "apt-get", "cd", "cp", "curl", "export", "openssl", "pip", "printf", "tar"}


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOTSWAP_CONFIG", "")


def shown(command: Command) -> str:
    return str(command)[:100]


@pytest.mark.parametrize("command", COMMANDS, ids=shown)
def test_every_command_of_a_block_can_be_typed(command: Command) -> None:
    read(command, whole=True)


@pytest.mark.parametrize("command", MENTIONS, ids=shown)
def test_every_command_in_a_sentence_is_one(command: Command) -> None:
    read(command, whole=False)


def read(command: Command, *, whole: bool) -> None:
    program, *rest = command.words
    if program in ("hotswap", ".venv/bin/hotswap"):
        read_hotswap(command.words, whole=whole)
    elif program == "python" and rest[0] == "-m":
        read_module(rest[1], tuple(rest[2:]), whole=whole)
    elif program == "make":
        read_make(rest)
    elif program == "accelerate":
        config, script, *words = rest[rest.index("--config_file") + 1 :]
        assert (PROJECT / config).is_file()
        assert script == "hotswap.py"
        read_hotswap(("hotswap", *words))
    elif program == "docker":
        read_docker(rest)
    elif program == "kubectl":
        for path in (word for word in rest if word.startswith("deploy/")):
            assert (PROJECT / path).exists(), path
    else:
        assert program in OTHERS, f"{command}: nothing here reads a {program!r} command"


def read_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    settings = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE)) | {"PYTHON"}
    for word in words:
        name, sign, value = word.partition("=")
        assert name in (settings if sign else targets), word
        if name == "ARGS" and words[0] == "serve":
            read_hotswap(("hotswap", "serve", *value.split()))
        elif name == "ARGS" and words[0] == "bench":
            read_hotswap(("hotswap", "bench", "suite", *value.split()))


def read_docker(words: list[str]) -> None:
    if words[0] == "build":
        stages = re.findall(r"^FROM \S+ AS (\w+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
        assert words[words.index("--target") + 1] in stages
    elif words[0] == "run":
        assert any(word.startswith("hotswap:") for word in words)
    else:
        assert words[0] == "compose", words
        files = [words[place + 1] for place, word in enumerate(words) if word == "-f"]
        assert files
        for name in files:
            assert (PROJECT / name).is_file(), name
        if "exec" in words:
            read_hotswap(tuple(words[words.index("gateway") + 1 :]))


def test_every_example_of_a_help_text_can_be_typed() -> None:
    for path, command in leaves():
        for line in re.findall(r"Example: (hotswap [^\n]*)", command.help or ""):
            (example, *_) = parse(line, " ".join(path))
            read_hotswap(example.words)


@pytest.mark.parametrize(
    "line",
    [
        "hotswap nothing",
        "hotswap serve --no-such-flag 1",
        "hotswap serve --dtype int3",
        "hotswap serve --port eighty",
        "hotswap train data.jsonl",
        "hotswap train data.jsonl --name risk --method lorax",
        "hotswap quantize default --scheme gptq-w5a16",
        "hotswap adapters load risk",
        "hotswap bench run --api grpc",
        "hotswap bench run --arrivals posson:4",
        "hotswap bench run --slo chatty",
        "hotswap bench peers --peer vlm",
        "hotswap bench compare a b --fail-on goodput",
        "hotswap bench suite -- --max-loras 0",
        "python -m benchmarks.nothing",
        "python -m benchmarks.fidelity --nothing",
        "python -m tests.contamination --nothing 1",
    ],
)
def test_a_command_that_would_be_refused_is_found(line: str) -> None:
    (command,) = parse(line, "here")
    with pytest.raises(WrongCommandError):
        read(command, whole=True)


def test_of_a_session_what_was_typed_is_read(tmp_path: Path) -> None:
    text = "$ hotswap adapters list --url \\\n    http://a\nrisk\n$ hotswap doctor | tee x  # both\nfine\n"
    page = Page(tmp_path / "page.md")
    page.path.write_text(f"```sh\n{text}```\n")
    assert [command.words for command in commands_of(page)] == [
        ("hotswap", "adapters", "list", "--url", "http://a"),
        ("hotswap", "doctor"),
        ("tee", "x"),
    ]


def test_each_kind_of_command_was_found() -> None:
    programs = {command.words[0] for command in COMMANDS}
    assert {"hotswap", "make", "curl", "python"} <= programs
    assert len(COMMANDS) > 80
