"""httptools' parser for a server that speaks HTTP/1.1 alone, and overhears wishes for others (RFC 9110, 7.8).

Java's HTTP client asks with its first request whether HTTP/2 may follow (`Upgrade: h2c`). httptools then takes the
head for the end of the request, and uvicorn loses the body: the request is answered as an empty one, and a body
that comes a moment later is read as the next request, which lets a client put one behind a proxy's back. So such a
head is read a second time without the wish, and the body after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httptools

_HOP_BY_HOP = frozenset({b"upgrade", b"http2-settings"})


class PlainParser:
    """Around an httptools.HttpRequestParser; whatever is not here is its own."""

    def __init__(self, parser: Any, head_again: Callable[[], bytes]) -> None:
        """`head_again` is the head that asked for another protocol as it is to be read; empty: as it is."""
        self._parser = parser
        self._head_again = head_again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def asks_upgrade(self) -> bool:
        """Whether the head that was just read asks for another protocol. CONNECT is none: it is refused."""
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def feed_data(self, data: bytes) -> None:
        """As httptools'. Raises HttpParserError; HttpParserUpgrade for CONNECT alone."""
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                head = self._head_again()
                if not head:
                    raise
                self._parser.feed_data(head)
                rest = rest[upgrade.args[0] :]
            else:
                return


def plain_head(parser: Any, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The head that `parser` has just read, without what concerns a change of protocol."""
    lines = [b"%s %s HTTP/%s" % (parser.get_method(), url, parser.get_http_version().encode())]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            kept = [token for token in tokens if token.lower() not in _HOP_BY_HOP]
            lines += [b"connection: " + b", ".join(kept)] if kept else []
        elif name not in _HOP_BY_HOP:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
