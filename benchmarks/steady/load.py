"""A load that runs beside whatever its owner does to the server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from benchmarks.errors import ClientFailedError
from benchmarks.steady.client import Order
from benchmarks.steady.record import Record, read_records
from benchmarks.surroundings import CHECKOUT

CLIENT_MODULE = "benchmarks.steady.client"
START_SECONDS = 2.0  # for the imports of the client
_GRACE_SECONDS = 60.0


class Load:
    """One client process. In a `with` statement it is started inside and gone after."""

    def __init__(self, order: Order, folder: Path, name: str) -> None:
        self.order = order
        self.records_path = folder / f"{name}.jsonl"
        self._order_path = folder / f"{name}.order.json"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Load:
        self._order_path.write_text(self.order.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", CLIENT_MODULE, str(self._order_path), str(self.records_path)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.communicate()

    @property
    def process_id(self) -> int:
        """Of the client."""
        return self._process.pid if self._process is not None else 0

    @property
    def now_seconds(self) -> float:
        """Seconds since the first request was due."""
        return time.monotonic() - self.order.start_at_seconds

    def check(self) -> None:
        """Raises ClientFailedError when the client has ended early."""
        if self._process is not None and self._process.poll() not in (None, 0):
            raise ClientFailedError(f"the load client failed: {self._reason()}")

    def wait(self) -> list[Record]:
        """All records, when the load is over. Raises ClientFailedError."""
        if self._process is None:
            raise ClientFailedError("the load client was not started")
        left = self.order.seconds - self.now_seconds
        try:
            self._process.wait(max(0.0, left) + self.order.request_timeout_seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClientFailedError("the load client did not end") from None
        if self._process.returncode != 0 or not self.records_path.is_file():
            raise ClientFailedError(f"the load client failed: {self._reason()}")
        return read_records(self.records_path)

    def _reason(self) -> str:
        if self._process is None or self._process.stderr is None:
            return "it gave no reason"
        return self._process.stderr.read().strip()[-1000:] or "it gave no reason"
