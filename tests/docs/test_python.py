"""Python that a page shows compiles, and imports what there is."""

from __future__ import annotations

import ast
import importlib
import inspect

import pytest

from tests.docs.page import Block, pages

SNIPPETS = [(page.name, block) for page in pages() for block in page.blocks if block.language == "python"]


@pytest.mark.parametrize(("name", "block"), SNIPPETS, ids=lambda value: getattr(value, "line", value))
def test_every_snippet_compiles_and_imports_what_there_is(name: str, block: Block) -> None:
    module = ast.parse(block.text, filename=f"{name}:{block.line}")
    for node in ast.walk(module):
        # vLLM and torch take half a minute to import; their pages' code is run by tests of its own.
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] not in ("vllm", "torch")
        ):
            imported = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(imported, alias.name), f"{name}: {node.module} has no {alias.name}"


def test_the_calls_of_clients_have_arguments_that_the_clients_take() -> None:
    """`Client(...).generate(...)` of lorax-client and text-generation, as the pages write it."""
    checked = 0
    for name, block in SNIPPETS:
        module = ast.parse(block.text)
        known = {
            alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
            for node in module.body
            if isinstance(node, ast.ImportFrom)
            and node.module in ("lorax", "text_generation", "huggingface_hub", "openai")
            for alias in node.names
        }
        made: dict[str, type] = {}
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                kind = known.get(getattr(node.value.func, "id", ""))
                if kind is not None and isinstance(node.targets[0], ast.Name):
                    made[node.targets[0].id] = kind
                    _bind(kind.__init__, node.value, f"{name}:{block.line}")
                    checked += 1
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                kind = made.get(getattr(node.func.value, "id", ""))
                method = getattr(kind, node.func.attr, None) if kind is not None else None
                if method is not None:
                    _bind(method, node, f"{name}:{block.line}")
                    checked += 1
    assert checked >= 3


def _bind(function: object, call: ast.Call, where: str) -> None:
    assert callable(function)
    arguments = [object()] * (len(call.args) + 1)
    keywords = {keyword.arg: object() for keyword in call.keywords if keyword.arg is not None}
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError as error:
        raise AssertionError(f"{where}: {ast.unparse(call)}: {error}") from error
