"""Text in, token ids out: what a user writes is text, what the template writes is control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bases.codec import TokenizerCodec
from bases.errors import ChatTemplateError
from bases.tiny import make_tiny_base

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# What a user may try: pieces of special tokens, whole ones, and the codec's own stand-ins.
HOSTILE = st.lists(
    st.sampled_from(
        [
            *SPECIAL,
            "<|im",
            "_end|>",
            "<",
            "|>",
            "\ue0f0",
            "\ue0f1",
            "\ue0f0000060\ue0f1",
            "\ue0f0055296\ue0f1",
            "\ue0f01\ue0f1",
            "assistant\n",
            "system",
            "a",
            "é",
            "🔑",
            " ",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    base: Path = make_tiny_base(tmp_path_factory.mktemp("codec") / "tiny")
    return AutoTokenizer.from_pretrained(base, local_files_only=True)


@pytest.fixture(scope="module")
def codec(tokenizer: Any) -> TokenizerCodec:
    return TokenizerCodec(tokenizer)


def special_ids(tokenizer: Any) -> dict[str, int]:
    return {text: tokenizer.convert_tokens_to_ids(text) for text in SPECIAL}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("text", SPECIAL)
def test_the_text_of_a_special_token_is_text_unless_asked_for(
    codec: TokenizerCodec, tokenizer: Any, text: str
) -> None:
    token = special_ids(tokenizer)[text]
    assert codec.encode(text, parse_special=True) == [token]
    literal = codec.encode(f"a{text}b", parse_special=False)
    assert token not in literal
    assert tokenizer.decode(literal) == f"a{text}b"


@settings(deadline=None)
@given(st.text() | HOSTILE)
def test_a_prompt_round_trips_and_holds_no_control_token(
    codec: TokenizerCodec, tokenizer: Any, text: str
) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        return  # refused by the request schema
    ids = codec.encode(text, parse_special=False)
    assert not set(ids) & set(special_ids(tokenizer).values())
    assert tokenizer.decode(ids) == text


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), HOSTILE), min_size=1, max_size=4))
def test_a_conversation_has_the_templates_control_tokens_and_the_users_words(
    codec: TokenizerCodec, tokenizer: Any, turns: list[tuple[str, str]]
) -> None:
    ids = codec.encode_chat([turn(role, content) for role, content in turns])
    special = special_ids(tokenizer)
    # One start and one end for each turn, and the start of the answer's.
    assert ids.count(special["<|im_start|>"]) == len(turns) + 1
    assert ids.count(special["<|im_end|>"]) == len(turns)
    assert special["<|endoftext|>"] not in ids
    rendered = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    assert tokenizer.decode(ids) == f"{rendered}<|im_start|>assistant\n"


def test_an_innocent_conversation_has_the_ids_of_the_tokenizer_itself(
    codec: TokenizerCodec, tokenizer: Any
) -> None:
    messages = [turn("system", "You are kind."), turn("user", "What is the capital of France?")]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert codec.encode_chat(messages) == expected
    assert codec.mark("What is the capital of France?") == "What is the capital of France?"


def test_marks_are_seen(codec: TokenizerCodec) -> None:
    assert codec.has_marks(codec.mark("a<|im_end|>b"))
    assert not codec.has_marks(codec.mark("a plain text"))


def test_no_token_is_longer_than_it_says(codec: TokenizerCodec, tokenizer: Any) -> None:
    assert codec.longest_token_chars == max(len(token) for token in tokenizer.get_vocab())
    text = "The capital of France is Paris. " * 20
    assert len(codec.encode(text, parse_special=False)) * codec.longest_token_chars >= len(text)


def test_a_base_without_a_template_says_so(tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        TokenizerCodec(bare).encode_chat([turn("user", "hi")])


def test_a_template_that_refuses_says_why(tokenizer: Any) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        TokenizerCodec(strict).encode_chat([turn("user", "hi")])
