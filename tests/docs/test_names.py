"""Flags, variables, series and error codes that a page names are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from serve.observability.metrics import GatewayMetrics
from tests.docs.command_line import flags, variables
from tests.docs.error_codes import http_codes, known_codes
from tests.docs.page import PROJECT, Page, pages
from tests.docs.sources import is_the_described_vllm, package, tree

PAGES = pages()
DEPLOY = [
    path
    for path in sorted((PROJECT / "deploy").rglob("*"))
    if path.is_file() and path.name not in (".env", "metrics.key")
]
described_vllm = pytest.mark.skipif(
    not is_the_described_vllm(), reason="the pages describe the CPU build of vLLM"
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# Flags that are others', and whose.
OTHERS_FLAGS = {
    "--no-deps": "pip",
    "--upgrade-package": "uv",
    "--target": "docker",
    "--gpus": "docker",
    "--build": "docker compose",
    "--detach": "docker compose",
    "--cpu": "accelerate",
    "--num_processes": "accelerate",
    "--config_file": "accelerate",
    "--logdir": "tensorboard",
    "--format": "tar",
    "--from-literal": "kubectl",
    "--max-active-adapters": "LoRAX",
    "--model-id": "LoRAX",
    "--quantize": "TGI",
    "--lora-paths": "SGLang",
    "--max-loras-per-batch": "SGLang",
    "--max-loaded-loras": "SGLang",
}
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]+[a-z]")


@each_page
def test_every_variable_is_a_setting_or_is_read_by_the_code(page: Page) -> None:
    for name in re.findall(r"\bHOTSWAP_[A-Z_0-9]*[A-Z0-9]\b(?!_?\.\.\.)", page.text):
        assert name in known_variables(), f"{page.name}: {name}"
    for prefix in re.findall(r"\b(HOTSWAP_[A-Z]+_)(?:\.\.\.|`)", page.text):
        assert any(name.startswith(prefix) for name in variables()), f"{page.name}: {prefix}"


@pytest.mark.parametrize("path", DEPLOY, ids=lambda path: path.name)
def test_every_variable_of_a_deployment_is_a_setting_or_is_read_there(path: Path) -> None:
    for name in re.findall(r"\bHOTSWAP_[A-Z_0-9]+\b", path.read_text(encoding="utf-8")):
        assert name in known_variables(), f"{path.name}: {name}"


@cache
def known_variables() -> set[str]:
    _, code = tree()
    read = set(re.findall(r"""["'](HOTSWAP_[A-Z_0-9]*[A-Z0-9])["']""", code))
    compose = "".join(path.read_text() for path in DEPLOY if path.name.startswith("compose"))
    return (
        set(variables()) | read | set(re.findall(r"\$\{(HOTSWAP_[A-Z_]+)", compose)) | {"HOTSWAP_TRAIN_NAME"}
    )


@described_vllm
@each_page
def test_every_flag_is_one(page: Page) -> None:
    known = flags() | module_flags() | vllm_flags() | set(OTHERS_FLAGS)
    for flag in _FLAG.findall(page.sentences):
        assert flag in known, f"{page.name}: {flag}"


@cache
def module_flags() -> set[str]:
    """Flags of the modules that are started with `python -m`: those written there, and those of typer."""
    files, _ = tree()
    found = set()
    for name in files:
        if re.match(r"(benchmarks|scripts|tests/contamination|serve/engine/cpu/lowbit)/.*\.py$", name):
            source = (PROJECT / name).read_text(encoding="utf-8")
            found |= set(re.findall(r'"(--[a-z-]+)', source))
            if "typer.Typer(" in source or "typer.run(" in source:
                for node in ast.walk(ast.parse(source)):
                    if isinstance(node, ast.FunctionDef):
                        found |= {f"--{argument.arg.replace('_', '-')}" for argument in node.args.args}
    return found


@cache
def vllm_flags() -> set[str]:
    """Flags of the stock server, as its sources write them; to ask its parser takes half a minute."""
    names = ("vllm/engine/arg_utils.py", "vllm/entrypoints/launchers/cli_args.py")
    found = set()
    for source in (package("vllm").parent.joinpath(name).read_text(encoding="utf-8") for name in names):
        found |= set(re.findall(r'"(--[a-z-]+)"', source))
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and node.target.id.islower()
            ):
                found.add(f"--{node.target.id.replace('_', '-')}")
    return found


@described_vllm
@pytest.mark.parametrize("path", [*(page.path for page in PAGES), *DEPLOY], ids=lambda path: path.name)
def test_every_series_is_there(path: Path) -> None:
    known = series()
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bhotswap_[a-z_]+[a-z]\b(?!\.(?:json|toml)|_?\*)", text):
        assert name in known or name in NOT_SERIES, f"{path.name}: {name}"
    for name in re.findall(r"\bvllm:[a-z_]+[a-z]\b", text):
        assert name in vllm_series(), f"{path.name}: {name}"


# Names of a secret and of a file in the deployment.
NOT_SERIES = {"hotswap_metrics_key"}


@cache
def series() -> frozenset[str]:
    found = set()
    for family in GatewayMetrics().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        found |= {name} | (
            {f"{name}{end}" for end in ("_bucket", "_count", "_sum")} if family.type == "histogram" else set()
        )
    return frozenset(found)


@cache
def vllm_series() -> frozenset[str]:
    """What the installed vLLM names in its sources."""
    source = "".join(path.read_text(encoding="utf-8") for path in (package("vllm") / "v1").rglob("*.py"))
    names = set(re.findall(r'"(vllm:[a-z_]+)"', source))
    ends = ("", "_total", "_bucket", "_count", "_sum")
    return frozenset(name + end for name in names for end in ends)


@each_page
def test_every_code_after_a_status_is_one(page: Page) -> None:
    for status, code in re.findall(r"\b([45]\d\d) `([a-z]+(?:_[a-z]+)*)`", page.text):
        assert code in known_codes(), f"{page.name}: {status} {code}"


# Pages that speak of others' code, whose names are not ours.
OF_OTHERS = frozenset({"docs/migration.md", "docs/step-time.md", "docs/upstream-defects.md"})


@each_page
def test_every_name_of_a_field_code_or_setting_is_in_the_code(page: Page) -> None:
    if page.name in OF_OTHERS:
        return
    _, code = tree()
    for span in page.spans:
        if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", span):
            assert span in code, f"{page.name}: {span}"


def test_the_page_of_the_api_names_every_code_that_a_client_can_get() -> None:
    (api,) = (page for page in PAGES if page.name == "docs/api.md")
    table = api.text[api.text.index("## Errors") :]
    told = dict.fromkeys(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", table[: table.index("\n## ", 1)]))
    missing = sorted(set(http_codes()) - set(told))
    assert not missing
    rows = re.findall(r"^\| ([\d, ]*)\| (`[^|]*`) \|", table, re.MULTILINE)
    statuses = [{int(number) for number in re.findall(r"\d+", status)} for status, _ in rows]
    for place, (_, codes) in enumerate(rows):
        allowed = next(found for found in reversed(statuses[: place + 1]) if found)
        for code in re.findall(r"`([a-z_]+)`", codes):
            assert http_codes()[code] & allowed, f"docs/api.md: {code} stands at {allowed}"


def test_the_pages_name_enough_for_these_tests_to_mean_something() -> None:
    text = "".join(page.text for page in PAGES)
    assert len(set(_FLAG.findall(text))) > 120
    assert len(set(re.findall(r"\bhotswap_[a-z_]+_(?:total|seconds)\b", text))) > 20
