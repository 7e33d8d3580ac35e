"""How many tokens a request may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import ContextLengthError, InvalidRequestError
from serve.generation.limits import check_characters, tokens_to_generate


@given(
    prompt=st.integers(0, 300),
    asked=st.none() | st.integers(1, 300),
    default=st.integers(1, 300),
    context=st.integers(1, 300),
)
def test_a_request_fits_the_context_or_is_refused(
    prompt: int, asked: int | None, default: int, context: int
) -> None:
    fits = 0 < prompt < context and (asked is None or prompt + asked <= context)
    try:
        num_tokens = tokens_to_generate(prompt, asked, default=default, context_tokens=context)
    except InvalidRequestError:
        assert prompt == 0
    except ContextLengthError as error:
        assert not fits
        assert str(context) in str(error)
        assert str(prompt) in str(error)
        assert error.param == ("max_tokens" if asked is not None and prompt < context else "prompt")
    else:
        assert fits
        assert num_tokens == (asked if asked is not None else min(default, context - prompt))


def test_a_text_is_refused_only_when_no_tokenizer_could_make_it_fit() -> None:
    check_characters(80, context_tokens=10, longest_token_chars=8, param="prompt")
    with pytest.raises(ContextLengthError, match="81 characters, at least 11 tokens") as refused:
        check_characters(81, context_tokens=10, longest_token_chars=8, param="messages")
    assert refused.value.param == "messages"
