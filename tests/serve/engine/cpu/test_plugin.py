"""The plugin's switch: which parts it applies, when, and that it costs nothing when it is off."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys

import pytest
import vllm
from vllm.platforms import current_platform
from vllm.platforms.cpu import CpuPlatform

from serve.engine.cpu import lora_probe, plugin
from serve.engine.cpu.plugin import PATCHES_VARIABLE, CpuPart, UnknownCpuPartError, requested_parts

ISOLATED = "serve.engine.cpu.lora_isolation.IsolatedPunicaWrapper"

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform")


@pytest.fixture(autouse=True)
def platform_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo whatever a test lets the plugin change."""
    for name in ("get_punica_wrapper", "check_and_update_config"):
        monkeypatch.setattr(CpuPlatform, name, CpuPlatform.__dict__[name])


def test_names_are_split_at_commas_and_all_means_every_part():
    assert requested_parts("") == frozenset()
    assert requested_parts(" lora-isolation , uniproc ") == {CpuPart.LORA_ISOLATION, CpuPart.UNIPROC}
    assert requested_parts("all") == requested_parts("all,plain-weights") == frozenset(CpuPart)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        UnknownCpuPartError, match=r"unknown parts lora-fast; use direct-attention, direct-decoder"
    ):
        requested_parts("lora-fast")


def test_nothing_changes_while_the_variable_is_not_set(monkeypatch):
    monkeypatch.delenv(PATCHES_VARIABLE, raising=False)
    before = CpuPlatform.get_punica_wrapper()
    plugin.register()
    assert CpuPlatform.get_punica_wrapper() == before == lora_probe.STOCK_WRAPPER


def test_isolation_points_the_platform_at_the_mended_wrapper_however_often(monkeypatch):
    monkeypatch.setenv(PATCHES_VARIABLE, "lora-isolation")
    plugin.register()
    plugin.register()
    assert current_platform.get_punica_wrapper() == ISOLATED


@pytest.mark.parametrize(
    ("parts", "wrapper"),
    [
        ("lora-isolation,lora-grouped", "lora_grouped.GroupedPunicaWrapper"),
        ("lora-grouped,lora-compiled", "lora_compiled.CompiledPunicaWrapper"),
        ("all", "lora_compiled.CompiledPunicaWrapper"),
    ],
)
def test_of_the_parts_that_bring_lora_operations_the_fastest_is_used(monkeypatch, parts, wrapper):
    monkeypatch.setenv(PATCHES_VARIABLE, parts)
    monkeypatch.setattr(plugin, "_MODULES", {})
    plugin.register()
    assert current_platform.get_punica_wrapper() == f"serve.engine.cpu.{wrapper}"


def test_an_unverified_vllm_with_the_defect_gets_the_mend_that_fits_and_no_speed_up(monkeypatch, caplog):
    monkeypatch.setenv(PATCHES_VARIABLE, "lora-grouped")
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    with caplog.at_level(logging.WARNING):
        plugin.register()
    assert CpuPlatform.get_punica_wrapper() == ISOLATED
    assert "0.99.0 is not verified with the CPU parts lora-grouped" in caplog.text


def test_an_unverified_vllm_that_is_right_by_itself_is_left_alone(monkeypatch):
    monkeypatch.setenv(PATCHES_VARIABLE, "lora-isolation")
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    monkeypatch.setattr(lora_probe, "STOCK_WRAPPER", ISOLATED)  # stands for a vLLM that mended itself
    before = CpuPlatform.get_punica_wrapper()
    plugin.register()
    assert CpuPlatform.get_punica_wrapper() == before


def test_a_mend_that_does_not_fit_is_reported_and_not_applied(monkeypatch, caplog):
    monkeypatch.setenv(PATCHES_VARIABLE, "lora-isolation")
    monkeypatch.setattr(vllm, "__version__", "0.99.0")
    monkeypatch.setattr(lora_probe, "broken_operations", lambda _: ("linear (prefill)",))
    before = CpuPlatform.get_punica_wrapper()
    plugin.register()
    assert CpuPlatform.get_punica_wrapper() == before
    assert "mixes adapters into base requests" in caplog.text


def test_vllm_finds_the_entry_point():
    entries = importlib.metadata.entry_points(group="vllm.general_plugins", name="hotswap_cpu")
    assert [entry.load() for entry in entries] == [plugin.register]


def test_an_inactive_plugin_imports_neither_torch_nor_vllm():
    code = (
        "import sys; from serve.engine.cpu import plugin; plugin.register(); "
        "print(sorted({'torch', 'vllm'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != PATCHES_VARIABLE}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert output.stdout.strip() == "[]", output.stderr
