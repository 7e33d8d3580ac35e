"""A gateway in a process of its own, with the real engine, started and ended as an operator would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import httpx

REPOSITORY = Path(__file__).parents[3]
START_SECONDS = 240.0  # on an idle machine a sixth of it
STOP_SECONDS = 60.0


class LiveServer:
    """`hotswap serve` on a free port; in a `with` statement it is ready inside and gone after."""

    def __init__(self, home: Path, *arguments: str) -> None:
        """`home` is HOTSWAP_HOME; adapters are read from `home/adapters`."""
        self.home = home
        self.adapter_root = home / "adapters"
        self.log: list[str] = []
        self.start_seconds = 0.0
        self.url = ""
        self._arguments = arguments
        self._news = threading.Condition()
        self._ended = False

    def __enter__(self) -> LiveServer:
        started = time.perf_counter()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hotswap", "serve", "--port", "0", *self._arguments],
            cwd=REPOSITORY,
            env={**clean, "HOTSWAP_HOME": str(self.home), "HF_HUB_OFFLINE": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self.wait_for_line("ready: ", START_SECONDS).split("ready: ")[1].split()[0]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.start_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.wait_for_exit()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def terminate(self) -> None:
        """Ask it to end, as `docker stop` does."""
        self.process.send_signal(signal.SIGTERM)

    def wait_for_exit(self) -> int:
        """The exit code."""
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        if not self._reader.is_alive() and self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def wait_for_line(self, part: str, seconds: float) -> str:
        """The first line of the log that holds `part`. Raises AssertionError with the log when none comes."""

        def found() -> str | None:
            return next((line for line in self.log if part in line), None)

        with self._news:
            self._news.wait_for(lambda: self._ended or found() is not None, seconds)
        line = found()
        if line is None:
            raise AssertionError(f"the server's log has no {part!r}:\n" + "".join(self.log[-40:]))
        return line

    def client(self) -> httpx.Client:
        """A synchronous client with the patience of a loaded machine."""
        return httpx.Client(base_url=self.url, timeout=120)

    def async_client(self) -> httpx.AsyncClient:
        """An asynchronous client without a limit on connections."""
        return httpx.AsyncClient(base_url=self.url, timeout=120, limits=httpx.Limits(max_connections=None))

    def metric(self, series: str) -> float:
        """The value of one series in /metrics, 0.0 when it is not there (yet); labels are part of the name."""
        for line in httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines():
            if line.startswith(series) and line[len(series)] in " {":
                return float(line.rpartition(" ")[2])
        return 0.0

    def wait_until(self, true: Callable[[], bool], seconds: float) -> float:
        """Ask until it is so; returns the seconds it took. Raises AssertionError when it never is."""
        started = time.perf_counter()
        pause = threading.Event()
        while not true():
            if time.perf_counter() - started > seconds:
                raise AssertionError(f"not so after {seconds:g} s:\n" + "".join(self.log[-20:]))
            pause.wait(0.02)
        return time.perf_counter() - started

    def _read(self) -> None:
        assert self.process.stderr is not None
        with (self.home / "server.log").open("a") as kept:  # for whoever looks into a failed run
            for line in self.process.stderr:
                kept.write(line)
                with self._news:
                    self.log.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
