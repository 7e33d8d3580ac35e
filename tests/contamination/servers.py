"""The servers under test: the gateway on the scripted engine in this process, or on vLLM in one of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from adapters.artefact import WEIGHTS_NAME
from bases.tiny import make_tiny_base
from serve.engine.protocol import AdapterHandle, EngineOutput, EngineRequest
from serve.engine.scripted import Script, ScriptedEngine
from serve.server import HotswapServer
from serve.settings import ServeSettings
from tests.contamination.cast import Cast, model_cast, scripted_cast, scripted_word
from tests.patience import patient
from tests.serve.live.live_server import LiveServer

MAX_LORAS = 3  # fewer slots than versions: they are exchanged all the time
MAX_CPU_LORAS = 32  # more places than versions: what is loaded stays
READY_SECONDS = 60.0
RESTART_WINDOW_SECONDS = 20.0  # kills that are further apart are no crash loop


@dataclass
class ServerUnderTest:
    """A ready server and what it can be asked."""

    url: str
    cast: Cast
    process: psutil.Process
    leave_seconds: float  # clients that leave do so within this time
    pause_seconds: float  # mean time between the verbs on one name
    kill_engine: Callable[[], None]


class WordEngine(ScriptedEngine):
    """Says what the weights that it holds say, whatever name they were loaded under.

    An adapter that is not there any more is read again, as vLLM does; where its files are gone the request fails.
    """

    def __init__(self) -> None:
        super().__init__(
            Script(ttft_seconds=0.003, tpot_seconds=0.002, load_seconds=0.01),
            max_num_seqs=64,
            max_cpu_loras=MAX_CPU_LORAS,
        )
        self.weights: dict[int, bytes] = {}

    async def start(self) -> None:
        await super().start()
        self.weights = {number: held for number, held in self.weights.items() if number in self.adapters}

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        await super().load_adapter(adapter)
        self.weights[adapter.engine_id] = await asyncio.to_thread((adapter.path / WEIGHTS_NAME).read_bytes)

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        await super().unload_adapter(adapter)
        self.weights.pop(adapter.engine_id, None)

    async def _steps(self, request: EngineRequest) -> AsyncIterator[EngineOutput]:
        word = await self.word(request)
        async for output in super()._steps(request):
            for delta in output.deltas:
                delta.text = f"{word} "
            yield output

    async def word(self, request: EngineRequest) -> str:
        """What answers this request."""
        if request.adapter is None:
            return "base"
        if request.adapter.engine_id not in self.weights:
            await self.load_adapter(request.adapter)
        return scripted_word(self.weights[request.adapter.engine_id])


@asynccontextmanager
async def scripted_server(home: Path, engine: ScriptedEngine | None = None) -> AsyncIterator[ServerUnderTest]:
    """The whole gateway behind a real socket, in this process."""
    settings = ServeSettings(
        home=home,
        engine="scripted",
        port=0,
        max_queued_requests=512,
        engine_restart_window_seconds=RESTART_WINDOW_SECONDS,
    )
    cast = scripted_cast(settings.adapter_folder)
    engine = engine or WordEngine()
    server = HotswapServer(settings, engine=engine)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not server.started and not task.done():
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient(base_url=server.address, timeout=patient(5)) as client:
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
        yield ServerUnderTest(server.address, cast, psutil.Process(), 0.03, 0.15, engine.die)
    finally:
        server.should_exit = True
        async with asyncio.timeout(READY_SECONDS):
            await task


def engine_core(server: psutil.Process) -> psutil.Process:
    """The process in which vLLM computes."""
    [core] = [child for child in server.children(recursive=True) if "EngineCore" in " ".join(child.cmdline())]
    return core


@asynccontextmanager
async def live_server(home: Path, kept: Path) -> AsyncIterator[ServerUnderTest]:
    """The gateway on vLLM with a tiny base; adapters that were trained once are found in `kept`."""
    base = home / "tiny"
    if not base.is_dir():
        await asyncio.to_thread(make_tiny_base, base, seed=1)
    server = LiveServer(
        home,
        f"--base={base}",
        "--dtype=float32",
        "--kv-cache-gib=0.2",
        "--max-num-seqs=32",
        f"--max-loras={MAX_LORAS}",
        f"--max-cpu-loras={MAX_CPU_LORAS}",
        "--max-lora-rank=8",
        f"--engine-restart-window-seconds={RESTART_WINDOW_SECONDS:g}",
    )
    shutil.rmtree(server.adapter_root, ignore_errors=True)
    cast = await asyncio.to_thread(model_cast, server.adapter_root, base=base, base_name=base.name, kept=kept)
    await asyncio.to_thread(server.__enter__)
    process = psutil.Process(server.process.pid)
    try:
        yield ServerUnderTest(server.url, cast, process, 0.5, 0.5, lambda: engine_core(process).kill())
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
