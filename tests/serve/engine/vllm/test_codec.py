"""What the chat template refuses is the client's error and names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from bases.tiny import make_tiny_base
from serve.engine.vllm.codec import RequestCodec
from serve.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("template", "reason"),
    [(None, "no chat template"), ("{{ raise_exception('roles must alternate') }}", "roles must alternate")],
)
def test_messages_that_the_template_does_not_take_are_the_clients_error(
    tmp_path: Path, template: str | None, reason: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path / "tiny"), local_files_only=True)
    tokenizer.chat_template = template
    with pytest.raises(InvalidRequestError, match=reason) as refused:
        RequestCodec(tokenizer).encode_chat([{"role": "user", "content": "hi"}])
    assert refused.value.param == "messages"
