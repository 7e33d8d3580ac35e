"""uvicorn's HTTP protocol with limits on the head of a request and on a client that does not read.

uvicorn has none: its keep-alive timer ends with the next byte, whatever that is, so that one byte every few
seconds, or a single one after an answer, holds a connection for ever (uvicorn#157); a head may grow without end;
so may the trailers of a chunked body, which become headers of the request; and a connection is only closed once its
last byte is read. The body's limits are in serve/http/body.py.

A process that was held up (stopped, or without a processor) fires its timers before it looks at its sockets, and
would close connections whose requests have long been there. So before it closes one it looks at the socket again.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.http.errors import error_body
from serve.http.plain_parser import PlainParser, plain_head
from serve.http.request_id import new_request_id

MAX_HEAD_BYTES = 64 * 1024
LAST_LOOK_SECONDS = 0.05  # longer than one turn of the loop


class _HeadTooLargeError(Exception):
    """Ends the parser; never leaves this file."""


def limited_protocol(*, receive_seconds: float, send_seconds: float) -> type[HttpToolsProtocol]:
    """A protocol class with limits.

    A connection is closed when a request head is not complete `receive_seconds` after its first byte (or after
    the connection was made, or after anything else that came while no answer was due), gets 431 when a head is
    larger than MAX_HEAD_BYTES or that much comes behind it without a byte of the body, and is cut when the client
    leaves the write buffer full for `send_seconds`. Trailers are dropped (RFC 9110, 6.5.1).
    """

    class LimitedProtocol(HttpToolsProtocol):
        _deadline: asyncio.TimerHandle | None = None
        _write_deadline: asyncio.TimerHandle | None = None
        _head_begun = False
        _head_bytes = 0  # of the reads that hold nothing but a part of the head
        _refused_head = False
        _body_begun = False  # the head is complete, and the body is not
        _body_came = False  # in this read
        _bodiless_bytes = 0  # of the reads since, one after the other, that brought nothing of it
        _trailer_bytes = 0
        _reads_again = False  # what comes next is the same request, without its wish for another protocol

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.parser: Any = PlainParser(self.parser, self._head_to_read_again)
            self._again = b""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            self._disarm_write()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            in_head, in_body, self._body_came = self._head_begun, self._body_begun, False
            super().data_received(data)
            if in_head and self._head_begun:
                self._head_bytes += len(data)
            elif in_body and self._body_begun:
                self._bodiless_bytes = 0 if self._body_came else self._bodiless_bytes + len(data)
            if (
                max(self._head_bytes, self._bodiless_bytes) > MAX_HEAD_BYTES
                and not self.transport.is_closing()
            ):
                self._refuse_head()
            is_timed = self._deadline is not None or self.timeout_keep_alive_task is not None
            if not is_timed and not self._owes_answer() and not self.transport.is_closing():
                self._arm()  # the rest of a body that nobody asked for, or empty lines

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head_begun, self._body_begun = True, False
            self._head_bytes = self._bodiless_bytes = self._trailer_bytes = 0
            self._arm()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._head_begun:
                super().on_header(name, value)
                return
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                self._refused_head = True
                raise _HeadTooLargeError

        def on_body(self, body: bytes) -> None:
            self._body_came = True
            super().on_body(body)

        def on_headers_complete(self) -> None:
            self._disarm()
            self._head_begun = False
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                self._refused_head = True
                raise _HeadTooLargeError
            self._reads_again = self.parser.asks_upgrade()
            if self._reads_again:
                self._again = plain_head(self.parser, self.url, self.headers)
            else:
                self._body_begun = True
                super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._body_begun = False
            if not self._reads_again:
                super().on_message_complete()

        def _head_to_read_again(self) -> bytes:
            again, self._again = self._again, b""
            return again

        def _owes_answer(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            """Called by uvicorn for whatever its parser refuses."""
            del msg
            if self._refused_head:
                self._refuse_head()
            else:
                self._refuse(400, "invalid_http", "this is not an HTTP/1.1 request")

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_deadline = self.loop.call_later(send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._disarm_write()
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            """Called by uvicorn when nothing came for its keep-alive time, as far as the loop has looked."""
            self.timeout_keep_alive_task = self.loop.call_later(
                LAST_LOOK_SECONDS, super().timeout_keep_alive_handler
            )

        def _refuse_head(self) -> None:
            message = (
                f"the head of the request, or what follows its body, is larger than {MAX_HEAD_BYTES} bytes"
            )
            self._refuse(431, "head_too_large", message)

        def _refuse(self, status: int, code: str, message: str) -> None:
            request_id = new_request_id()
            body = orjson.dumps(error_body(status, code, message, request_id))
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
            )
            self._disarm()
            self.transport.write(head.encode("ascii") + body)
            self.transport.close()

        def _arm(self) -> None:
            self._disarm()
            self._deadline = self.loop.call_later(receive_seconds, self._expire_after_a_look)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _disarm_write(self) -> None:
            if self._write_deadline is not None:
                self._write_deadline.cancel()
                self._write_deadline = None

        def _expire_after_a_look(self) -> None:
            self._deadline = self.loop.call_later(LAST_LOOK_SECONDS, self._expire)

        def _expire(self) -> None:
            self._deadline = None
            if not self.transport.is_closing():
                self.transport.close()

    return LimitedProtocol
