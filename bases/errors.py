"""The root of every error Hotswap raises on purpose, and the errors of base models.

HotswapError                        has a stable `code`; its text says what, the value, and what to do
├── BaseModelError                  bases/errors.py
│   ├── BaseNotFoundError           no folder, embedded default or hub model of that name
│   ├── BaseInvalidError            found, but not a causal language model that can be served
│   ├── BaseConversionError         the embedded default could not be materialised
│   └── ChatTemplateError           no chat template, or it refuses the messages
├── AdapterError                    adapters/errors.py
├── QuantizeError                   quantize/errors.py
└── ServeError                      serve/errors.py
"""

from __future__ import annotations

from typing import ClassVar


class HotswapError(Exception):
    """Base of all errors that are a message to the user and not a bug."""

    code: ClassVar[str] = "error"


class BaseModelError(HotswapError):
    """A base model cannot be used."""

    code: ClassVar[str] = "base_error"


class BaseNotFoundError(BaseModelError):
    """No folder, embedded default or hub model has that name."""

    code: ClassVar[str] = "base_not_found"


class BaseInvalidError(BaseModelError):
    """The base was found but is not a causal language model that can be served."""

    code: ClassVar[str] = "base_invalid"


class BaseConversionError(BaseModelError):
    """The embedded default base could not be materialised."""

    code: ClassVar[str] = "base_conversion_failed"


class ChatTemplateError(BaseModelError):
    """The base has no chat template, or its template does not take the messages."""

    code: ClassVar[str] = "chat_template"
