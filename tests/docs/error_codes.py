"""Every code that an error can have: from the tree of errors, the wire, and the check of adapters."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache

from serve.http.errors import _TYPES, status_of
from serve.lifecycle.verdict import Cause
from tests.docs.page import PROJECT
from tests.serve.http.test_errors import all_errors

# Codes that no client of the gateway sees, and why.
NOT_AT_A_CLIENT = {
    # parents, of which only children are raised
    "serve_error", "invalid_request", "access_denied", "engine_error", "base_error",
    # the client is gone
    "client_gone",
    # what a check finds, and reports as adapter_check_failed
    "adapter_file_invalid", "safetensors_invalid",
    # ends the start, with exit code 1 or 3
    "invalid_settings", "base_not_found", "base_invalid", "base_conversion_failed", "registry_url_invalid",
    "registry_failed", "cpu_isa_unknown", "cpu_kernels_unknown", "cpu_part_unknown", "kernel_build_failed",
    # turned into invalid_value by the codec of the engine
    "chat_template",
    # ends a command
    "data_invalid", "training_failed", "training_settings_invalid", "export_failed", "not_servable",
    "merge_failed", "evaluation_failed", "gateway_refused", "gateway_unreachable", "start_trial_failed",
    # a bug: the client gets internal_error
    "illegal_transition",
}  # fmt: skip
_WIRE = ("serve/http/protocol.py", "serve/http/host.py", "serve/http/errors.py")
_CHECK = tuple(
    f"adapters/{name}.py" for name in ("artefact", "check", "config_rules", "manifest", "tensor_rules")
)


@cache
def http_codes() -> dict[str, frozenset[int]]:
    """Code that a client can get -> the statuses it can come with."""
    found: dict[str, set[int]] = defaultdict(set)
    for kind in all_errors().values():
        if kind.code not in NOT_AT_A_CLIENT:
            found[kind.code].add(status_of(kind.__new__(kind)))
    for node in (node for name in _WIRE for node in ast.walk(_parsed(name))):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            _note(found, *node.args[:2])
        elif isinstance(node, ast.Dict) and len(node.keys) < len(_TYPES):
            for key, value in zip(node.keys, node.values, strict=True):
                _note(found, key, value)
    return {code: frozenset(statuses) for code, statuses in found.items()}


@cache
def check_codes() -> frozenset[str]:
    """Codes of what the check of an adapter finds, problems and warnings."""
    found: set[str] = set()
    for node in (node for name in _CHECK for node in ast.walk(_parsed(name))):
        if isinstance(node, ast.Call) and node.args and _callee(node) in ("add", "Problem"):
            found |= _words(node.args[0])
        elif isinstance(node, ast.Assign):
            found |= _assigned(node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            # key of the configuration -> (code, title)
            for entry in node.value.values:
                found |= _words(entry.elts[0]) if isinstance(entry, ast.Tuple) else set()
    return frozenset(found)


def probe_causes() -> frozenset[str]:
    """Why a probe can refuse an adapter."""
    return frozenset({*(str(cause) for cause in Cause), "not_measured"})


def known_codes() -> frozenset[str]:
    """All of them."""
    return frozenset({*http_codes(), *check_codes(), *probe_causes(), *NOT_AT_A_CLIENT})


@cache
def _parsed(name: str) -> ast.Module:
    return ast.parse((PROJECT / name).read_text(encoding="utf-8"))


def _assigned(target: ast.expr, value: ast.expr) -> set[str]:
    """What `code` is set to by `code = ...` and `code, why = ...`."""
    if isinstance(target, ast.Name):
        return _words(value) if target.id == "code" else set()
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        names = [getattr(part, "id", "") for part in target.elts]
        return _words(value.elts[names.index("code")]) if "code" in names else set()
    return set()


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _words(node: ast.expr) -> set[str]:
    if isinstance(node, ast.IfExp):
        return _words(node.body) | _words(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def _note(found: dict[str, set[int]], status: ast.expr | None, code: ast.expr) -> None:
    if isinstance(status, ast.Constant) and isinstance(status.value, int) and isinstance(code, ast.Constant):
        text = code.value
        if isinstance(text, str) and 400 <= status.value <= 599 and re.fullmatch("[a-z]+(_[a-z]+)+", text):
            found[text].add(status.value)
