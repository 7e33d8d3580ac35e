"""Limits that depend on the running base: the context, and what a prompt may hold."""

from __future__ import annotations

from serve.errors import ContextLengthError, InvalidRequestError


def tokens_to_generate(
    prompt_tokens: int, asked: int | None, *, default: int, context_tokens: int, param: str = "prompt"
) -> int:
    """How many tokens a request may generate.

    Raises InvalidRequestError for an empty prompt, ContextLengthError when it does not fit.
    """
    if prompt_tokens == 0:
        raise InvalidRequestError("the prompt holds no tokens; send some text", param=param)
    room = context_tokens - prompt_tokens
    if room < 1 or (asked is not None and asked > room):
        wanted = f" and {asked} to generate" if asked is not None else ""
        raise ContextLengthError(
            f"this model's context is {context_tokens} tokens, but the request has {prompt_tokens} in the "
            f"prompt{wanted}; shorten the prompt or lower max_tokens",
            param=param if asked is None or room < 1 else "max_tokens",
        )
    return min(asked if asked is not None else default, room)


def check_characters(num_chars: int, *, context_tokens: int, longest_token_chars: int, param: str) -> None:
    """Refuse a text that cannot fit whatever it says, before it is tokenised. Raises ContextLengthError."""
    fewest_tokens = -(-num_chars // max(1, longest_token_chars))
    if fewest_tokens > context_tokens:
        raise ContextLengthError(
            f"this model's context is {context_tokens} tokens, but the prompt has {num_chars} characters, "
            f"at least {fewest_tokens} tokens; shorten it",
            param=param,
        )
