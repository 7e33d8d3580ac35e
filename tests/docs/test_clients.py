"""Client snippets of docs/dialects.md run as they stand, against a gateway on the scripted engine."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from tests.docs.page import PROJECT, Block, Page
from tests.serve.clients.conftest import Served, blocking, served
from tests.serve.conftest import clean_environment, make_settings, running_server

# The fixtures of the serve room, which pytest finds by name.
__all__ = ["clean_environment", "make_settings", "running_server", "served"]
pytestmark = [
    pytest.mark.usefixtures("clean_environment"),
    # Two of the packages call `.dict()` of their own pydantic models.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]

ADDRESS = "http://127.0.0.1:8000"
SNIPPETS = [block for block in Page(PROJECT / "docs" / "dialects.md").blocks if block.language == "python"]


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.text.split()[1])
async def test_every_snippet_of_a_client_runs(served: Served, block: Block) -> None:
    """What it asks is answered by the adapter that it names; a client that it only makes is asked here."""
    source = block.text.replace(ADDRESS, served.url)
    assert source != block.text

    def run() -> tuple[str, Any]:
        *lines, last = source.rstrip().splitlines()
        lines.append(last if last.startswith(("print", "client =")) else f"print({last})")
        names: dict[str, Any] = {}
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n".join(lines), "docs/dialects.md", "exec"), names)
        return said.getvalue(), names.get("client")

    said, client = await blocking(run)
    if not said:
        said = (await client.generate("Risk 0 to 5?", max_new_tokens=1)).generated_text
    assert served.version in said


def test_there_is_a_snippet_for_each_client() -> None:
    text = "".join(block.text for block in SNIPPETS)
    for package in ("lorax", "text_generation", "huggingface_hub", "openai"):
        assert f"from {package} import" in text
