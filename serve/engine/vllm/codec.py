"""The base's codec as the gateway uses it: what its chat template refuses is the client's error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bases.codec import TokenizerCodec
from bases.errors import ChatTemplateError
from serve.errors import InvalidRequestError


class RequestCodec(TokenizerCodec):
    """A TokenizerCodec that raises InvalidRequestError, naming `messages`."""

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        try:
            return super().encode_chat(messages, add_generation_prompt=add_generation_prompt)
        except ChatTemplateError as error:
            raise InvalidRequestError(
                f"{error}; send 'prompt' instead of 'messages' to go without a template", param="messages"
            ) from None
