"""vLLM's own server, as it is installed: what clients that come from vLLM are used to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType

import httpx

START_SECONDS = 240.0
STOP_SECONDS = 60.0
_READY = "Application startup complete"


class StockServer:
    """A server on a socket in `folder`; in a `with` statement it is ready inside and gone after."""

    def __init__(self, folder: Path, base: Path, *arguments: str) -> None:
        self._socket = folder / "stock.sock"
        self._command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(base), "--uds", str(self._socket), *arguments),
        ]
        self._log: deque[str] = deque(maxlen=60)
        self._ready = threading.Event()
        self._is_up = False

    def __enter__(self) -> StockServer:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
        self._process = subprocess.Popen(
            self._command,
            env={**plain, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(START_SECONDS)
        if not self._is_up:
            self.__exit__(None, None, None)
            raise AssertionError("vLLM's own server did not start:\n" + "".join(self._log))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        if not self._reader.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()

    def client(self) -> httpx.Client:
        """A client with the patience of a loaded machine."""
        transport = httpx.HTTPTransport(uds=str(self._socket))
        return httpx.Client(base_url="http://stock", transport=transport, timeout=120)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.append(line)
            if _READY in line:
                self._is_up = True
                self._ready.set()
        self._ready.set()
