"""A PostgreSQL server that lets a client in and then says nothing, as one that was stopped does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_PARAMETERS = {"server_version": "16.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}


class SilentPostgres:
    """`lets_in`: answers the greeting of a client, https://www.postgresql.org/docs/current/protocol-flow.html."""

    def __init__(self, *, lets_in: bool) -> None:
        self.connections = 0
        self._lets_in = lets_in
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the registry would be."""
        return f"postgresql+psycopg://me:secret@127.0.0.1:{self._listener.getsockname()[1]}/registry"

    def close(self) -> None:
        """Hang up."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self.connections += 1
                if self._lets_in:
                    _greet(connection)


def _greet(connection: socket.socket) -> None:
    while True:
        (length,) = struct.unpack("!i", _exactly(connection, 4))
        (code,) = struct.unpack("!i", _exactly(connection, length - 4)[:4])
        if code not in (_SSL_REQUEST, _GSS_REQUEST):
            break
        connection.sendall(b"N")
    parameters = [_message(b"S", f"{name}\0{value}\0".encode()) for name, value in _PARAMETERS.items()]
    ready = [_message(b"K", struct.pack("!ii", 1, 1)), _message(b"Z", b"I")]
    connection.sendall(b"".join([_message(b"R", struct.pack("!i", 0)), *parameters, *ready]))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _exactly(connection: socket.socket, num_bytes: int) -> bytes:
    found = connection.recv(num_bytes, socket.MSG_WAITALL)
    if len(found) < num_bytes:
        raise ConnectionError("the client left")
    return found


@contextlib.contextmanager
def silent_postgres(*, lets_in: bool) -> Iterator[SilentPostgres]:
    """The server, for as long as the block runs."""
    server = SilentPostgres(lets_in=lets_in)
    try:
        yield server
    finally:
        server.close()
