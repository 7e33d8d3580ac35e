"""The command line, against a gateway in a process of its own."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import hotswap
from adapters.tiny import make_tiny_adapter
from bases.tiny import make_tiny_base
from serve.client import GatewayRefusedError
from serve.doctor import Finding
from serve.engine.cpu.lowbit.build import KernelBuildError
from serve.engine.vllm.machine import read_machine
from serve.settings import CONFIG_VARIABLE
from serve.start_trial import Stage
from tests.serve.conftest import ServerProcess, clean_environment, server_process

# The fixtures of the serve room, which pytest finds by name.
__all__ = ["clean_environment", "server_process"]
pytestmark = pytest.mark.usefixtures("clean_environment")

KEY = "0123456789abcdef-the-key"
WIDE = {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}


def run(*arguments: str, **env: str) -> Any:
    return CliRunner().invoke(hotswap.app, list(arguments), env={**WIDE, **env})


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the real entry point."""
    monkeypatch.setattr(sys, "argv", ["hotswap", *arguments])
    with pytest.raises(SystemExit) as ended:
        hotswap.main()
    code = ended.value.code
    return code if isinstance(code, int) else 0 if code is None else 1


def commands() -> Iterator[tuple[str, ...]]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, (*path, name))
        else:
            yield path

    yield from walk(typer.main.get_command(hotswap.app), ())


def test_these_are_the_commands() -> None:
    assert set(commands()) == {
        ("serve",),
        ("train",),
        ("evaluate",),
        ("quantize",),
        ("data", "inspect"),
        ("data", "prepare"),
        ("bench", "run"),
        ("bench", "sweep"),
        ("bench", "search"),
        ("bench", "compare"),
        ("bench", "lora-tax"),
        ("bench", "quant"),
        ("bench", "peers"),
        ("bench", "swap"),
        ("bench", "suite"),
        ("generate",),
        ("setup",),
        ("doctor",),
        ("adapters", "list"),
        ("adapters", "load"),
        ("adapters", "push"),
        ("adapters", "export"),
        ("adapters", "merge"),
        ("adapters", "compose"),
        ("adapters", "unload"),
        ("adapters", "check"),
        ("adapters", "validate"),
        ("adapters", "promote"),
        ("adapters", "rollback"),
        ("adapters", "traffic"),
        ("adapters", "pin"),
        ("adapters", "unpin"),
        ("adapters", "prefetch"),
        ("adapters", "operations"),
        ("adapters", "events"),
        ("adapters", "audit"),
        ("keys", "create"),
        ("keys", "list"),
        ("keys", "revoke"),
    }


@pytest.mark.parametrize("path", sorted(commands()), ids=" ".join)
def test_help_of_every_command_has_a_sentence_and_an_example(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0, result.output
    example = f"Example: hotswap {' '.join(path)}"
    assert example in " ".join(result.output.split())


@pytest.mark.parametrize("arguments", [(), ("adapters",)])
def test_without_a_command_the_commands_are_shown(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert "Usage" in result.output
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("generate",),
        ("generate", "x", "--max-tokens", "many"),
        ("adapters", "load", "risk"),
        ("serve", "--no-such-option", "1"),
        ("serve", "--port", "eighty"),
        ("serve", "--admin-key", KEY),  # it would stand in every process list
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture
def adapter(tmp_path: Path, tiny_base: Path) -> Path:
    from bases.passport import read_passport
    from bases.resolve import resolve_base

    home = tmp_path / "home"
    facts = read_passport(resolve_base(str(tiny_base), home=home), home=home).facts
    return make_tiny_adapter(tmp_path / "risk", linear_modules=facts.linear_modules)


def test_check_finds_nothing_in_a_good_folder(adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    result = run(
        "adapters", "check", str(adapter), "--base", str(tiny_base), HOTSWAP_HOME=str(tmp_path / "home")
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_check_needs_no_base(adapter: Path) -> None:
    result = run("adapters", "check", str(adapter), "--base", "none", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert report["facts"]["rank"] == 4


def test_check_lists_every_problem_and_ends_with_1(adapter: Path) -> None:
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    arguments = ("adapters", "check", str(adapter), "--base", "none", "--max-lora-rank", "2")
    result = run(*arguments)
    assert result.exit_code == 1
    problems = json.loads(run(*arguments, "--json").stdout)["problems"]
    assert problems
    assert all(problem["code"] in result.stdout for problem in problems)


def test_check_of_a_folder_that_is_not_there_ends_with_1(tmp_path: Path) -> None:
    assert run("adapters", "check", str(tmp_path / "missing"), "--base", "none").exit_code == 1


def test_a_base_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], adapter: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    missing = str(tmp_path / "nowhere")
    assert run_main(monkeypatch, "adapters", "check", str(adapter), "--base", missing) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("hotswap: ")
    assert "Traceback" not in said


def test_setup_makes_a_base_ready(tiny_base: Path, tmp_path: Path) -> None:
    result = run("setup", "--base", str(tiny_base), HOTSWAP_HOME=str(tmp_path / "home"), CXX="no-compiler")
    assert result.exit_code == 0, result.output
    assert "is ready (fingerprint " in result.stdout


@pytest.mark.skipif(read_machine().device != "cpu", reason="the kernels are for CPUs")
def test_setup_compiles_the_kernels_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, tiny_base: Path, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def build(home: Path, *, progress: Callable[[str], None]) -> Path:
        asked.append(home)
        progress("Compiling the low-bit kernels")
        raise KernelBuildError("No C++ compiler (g++) was found")

    monkeypatch.setattr("serve.engine.cpu.lowbit.build.build_library", build)
    result = run("setup", "--base", str(tiny_base), HOTSWAP_HOME=str(tmp_path / "home"))
    assert result.exit_code == 0
    assert asked == [tmp_path / "home"]
    assert result.stderr.splitlines()[-2:] == [
        "Compiling the low-bit kernels",
        "No C++ compiler (g++) was found",
    ]


def test_settings_that_cannot_work_are_named_and_end_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "serve", "--max-loras", "0", "--dtype", "int3") == 1
    said = capsys.readouterr().err
    assert "max_loras" in said
    assert "dtype" in said
    assert "Traceback" not in said


def test_the_settings_file_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "hotswap.toml"
    config.write_text("prot = 1\n")
    assert run_main(monkeypatch, "serve", "--config", str(config)) == 1
    assert "prot" in capsys.readouterr().err


def test_the_settings_file_of_one_test_is_not_that_of_the_next() -> None:
    import os

    assert os.environ[CONFIG_VARIABLE] == ""


@pytest.mark.parametrize(
    "arguments",
    [("generate", "x"), ("adapters", "list"), ("adapters", "load", "a", "b"), ("adapters", "unload", "a")],
    ids=" ".join,
)
def test_no_gateway_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unused_tcp_port: int,
    arguments: tuple[str, ...],
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert run_main(monkeypatch, *arguments, "--url", url) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hotswap: no gateway answers at")
    assert "hotswap serve" in line


def test_the_verbs_work_on_a_running_gateway(server_process: Callable[..., ServerProcess]) -> None:
    server = server_process(env={"HOTSWAP_ADMIN_KEY": KEY})
    env = {"HOTSWAP_URL": server.url, "HOTSWAP_ADMIN_KEY": KEY}

    result = run("generate", "hello", "--max-tokens", "2", **env)
    assert (result.exit_code, result.stdout) == (0, "base base \n")
    assert "scripted: 2 tokens" in result.stderr

    for seed in (0, 1):
        server.make_adapter(f"v{seed}", seed=seed)
    first = run("adapters", "load", "risk", "v0", **env)
    assert first.exit_code == 0, first.output
    version = first.stdout.split()[0]
    assert first.stdout.startswith(f"{version} is live; it moves log probabilities by up to ")
    assert run("adapters", "load", "risk", "v0", **env).stdout.startswith(f"{version} was live already")
    second = run("adapters", "load", "risk", "v1", **env)
    assert f"is live, replaced {version}" in second.stdout
    version = second.stdout.split()[0]

    result = run("generate", "hello", "--adapter", "risk", "--max-tokens", "1", "--chat", **env)
    assert result.stdout == f"{version} \n"

    listed = run("adapters", "list", COLUMNS="40", **env)
    assert listed.exit_code == 0
    assert version in listed.stdout  # never cut off, however narrow the screen
    assert "(live)" in listed.stdout
    assert "base scripted; 8 slots" in listed.stderr

    pushed = run("adapters", "push", "sent", str(server.home / "adapters" / "v0"), **env)
    assert pushed.exit_code == 0, pushed.output
    assert pushed.stdout.startswith("sent@")
    assert " is live; it moves log probabilities by up to " in pushed.stdout
    assert "upload:" in run("adapters", "list", **env).stdout

    unloaded = run("adapters", "unload", "risk", "--drain-seconds", "5", **env)
    assert unloaded.exit_code == 0
    assert version in unloaded.stdout

    for arguments in (("generate", "x", "--adapter", "risk"), ("adapters", "unload", "risk")):
        refused = run(*arguments, **env)
        assert refused.exit_code == 1
        assert isinstance(refused.exception, GatewayRefusedError)
        assert str(refused.exception).startswith("HTTP 404")
    for wrong in ({}, {"HOTSWAP_ADMIN_KEY": "another-key-of-some-length"}):
        refused = run("adapters", "list", HOTSWAP_URL=server.url, **wrong)
        assert str(refused.exception).startswith("HTTP 401")


def test_versions_are_moved_shared_and_followed_by_command(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    env = {"HOTSWAP_URL": server.url}
    for seed in (0, 1):
        server.make_adapter(f"v{seed}", seed=seed)

    def said(*arguments: str) -> str:
        result = run("adapters", *arguments, **env)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    assert said("validate", "v0").startswith("v0 can be loaded (")
    old = said("load", "risk", "v0").split()[0]
    new = said("load", "risk", "v1", "--no-promote").split()[0]
    assert said("promote", "risk", new, "--expected-live", old) == f"risk means {new}, was {old}\n"
    assert said("promote", "risk", new) == "risk meant that version already\n"
    assert said("rollback", "risk") == f"risk means {old}, was {new}\n"
    digits = new.partition("@")[2]
    assert said("pin", "risk", new) == f"{new} is pinned\n"
    assert said("prefetch", "risk", digits) == f"{new} is loaded\n"
    shared = said(
        "traffic", "risk", "--canary", f"{digits}=0.25", "--max-error-rate", "0.02", "--sticky", "session"
    )
    assert shared.splitlines()[:2] == [
        f"risk: {old} answers 0.75 of the requests, sticky by session",
        f"  canary {new}: 0.25",
    ]
    assert "max_error_rate 0.02" in shared
    assert said("traffic", "risk") == shared
    listed = said("list")  # narrow: what is said of a version stands below it
    assert new in listed
    assert "(pinned, canary 0.25)" in listed
    assert said("traffic", "risk", "--clear") == f"risk: {old} answers everything\n"
    assert said("unpin", "risk", new) == f"{new} is not pinned any more\n"
    assert said("unload", "risk", "--version", new) == f"unloaded {new}\n"
    operations = said("operations", "--name", "risk")
    assert "unload_version" in operations
    (first, *_) = [word for word in operations.split() if word.startswith("op-")]
    assert said("operations", first).startswith(f"{first} unload_version risk by local: done in ")
    audit = said("audit", "--name", "risk")
    assert f"local load {old} done source=v0" in audit
    (line, *_) = said("audit", "--action", "rollback", "--json").splitlines()
    assert json.loads(line)["outcome"] == "done"
    events = said("events", "--after", "0", "--seconds", "0")
    assert f"gateway state {old} live" in events
    refused = run("adapters", "promote", "risk", old, "--expected-live", new, **env)
    assert str(refused.exception).startswith("HTTP 409")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--clear", "--canary", "3f2a91c0=0.5"),
        ("--sticky", "session"),
        ("--canary", "3f2a91c0"),
        ("--canary", "3f2a91c0=much"),
        ("--canary", "3f2a91c0=0.5", "--no-guard", "--min-requests", "3"),
        ("--canary", "3f2a91c0=0.5", "--rollout", "much"),
        ("--canary", "3f2a91c0=0.5", "--step-seconds", "3"),
    ],
    ids=" ".join,
)
def test_a_plan_that_says_nothing_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run("adapters", "traffic", "risk", *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("findings", "exit_code"),
    [
        ([Finding("python", "3.11"), Finding("defect", "known", "note")], 0),
        ([Finding("python", "3.11"), Finding("lock", "drift", "warning")], 1),
    ],
)
def test_the_doctor_ends_with_1_on_a_warning(
    monkeypatch: pytest.MonkeyPatch, findings: list[Finding], exit_code: int
) -> None:
    asked: list[Path] = []

    def examine(home: Path) -> list[Finding]:
        asked.append(home)
        return findings

    monkeypatch.setattr("serve.doctor.examine", examine)
    result = run("doctor", HOTSWAP_HOME="/srv/hotswap")
    assert result.exit_code == exit_code
    assert asked == [Path("/srv/hotswap")]
    for finding in findings:
        assert finding.text in result.stdout


@pytest.mark.parametrize(("seconds", "exit_code"), [((50.0, 19.5), 0), ((19.5, 20.5), 1)])
def test_the_doctor_times_two_starts_and_judges_the_second(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], exit_code: int
) -> None:
    starts = iter([[Stage("base read", 1.25), Stage("ready", each)] for each in seconds])
    monkeypatch.setattr("serve.start_trial.start_once", lambda **_: next(starts))
    result = run("doctor", "--startup", HOTSWAP_PORT="0")
    assert result.exit_code == exit_code, result.output
    assert "base read" in result.stdout
    assert f"{seconds[1]:.2f}" in result.stdout
    assert f"the second start took {seconds[1]:.1f} s to ready; 20 s are aimed at" in result.stderr


def test_the_doctor_starts_nothing_beside_a_gateway_that_serves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HOTSWAP_PORT", str(port))
        assert run_main(monkeypatch, "doctor", "--startup") == 1
    assert f"something serves on port {port}" in capsys.readouterr().err
