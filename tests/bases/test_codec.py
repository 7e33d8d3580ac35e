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


R1_TURNS = ("<｜User｜>", "<｜Assistant｜>")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def r1(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    base = make_tiny_base(tmp_path_factory.mktemp("r1") / "tiny", architecture=request.param, chat="r1")
    return AutoTokenizer.from_pretrained(base, local_files_only=True)


@pytest.mark.parametrize("text", R1_TURNS)
@pytest.mark.parametrize("role", ["user", "system"])
def test_marks_of_a_turn_that_are_not_special_are_text_in_what_a_user_writes(
    r1: Any, text: str, role: str
) -> None:
    token = r1.convert_tokens_to_ids(text)
    messages = [turn(role, f"a{text}b"), turn("user", "Hi")]
    ids = TokenizerCodec(r1).encode_chat(messages)
    plain = TokenizerCodec(r1).encode_chat([turn(role, "ab"), turn("user", "Hi")])
    assert ids.count(token) == plain.count(token)
    assert f"a{text}b" in r1.decode(ids)
    assert token not in TokenizerCodec(r1).encode(f"a{text}b", parse_special=False)
    assert token in TokenizerCodec(r1).encode(f"a{text}b", parse_special=True)


def test_a_conversation_of_r1_is_tokenised_as_its_own_tokenizer_does(r1: Any) -> None:
    messages = [
        turn("system", "Be kind."),
        turn("user", "When?"),
        turn("assistant", "At nine, I think.</think>At nine."),
        turn("user", "Sure?"),
    ]
    ids = TokenizerCodec(r1).encode_chat(messages)
    assert ids == r1.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert r1.convert_ids_to_tokens(ids[-3:-1]) == ["<｜Assistant｜>", "<think>"]
    assert "I think" not in r1.decode(ids)


@settings(deadline=None)
@given(
    st.text() | st.lists(st.sampled_from([*R1_TURNS, "<｜", "｜>", "User", "\ue0f0", " ", "a"])).map("".join)
)
def test_no_text_of_a_user_writes_a_turn_of_r1(r1: Any, text: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text):
        return  # no text that comes over HTTP or from a file
    ids = TokenizerCodec(r1).encode_chat([turn("user", text)])
    for mark in R1_TURNS:
        assert ids.count(r1.convert_tokens_to_ids(mark)) == 1


def test_what_the_model_says_keeps_its_own_tokens(r1: Any) -> None:
    """Earlier answers may hold tool calls, whose marks are added tokens of the same kind."""
    codec = TokenizerCodec(r1)
    ids = codec.encode_chat(
        [turn("user", "a"), turn("assistant", "b<｜User｜>c")], add_generation_prompt=False
    )
    assert ids.count(r1.convert_tokens_to_ids("<｜User｜>")) == 2
