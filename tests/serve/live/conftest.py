"""Two servers with the real engine: one on the default base, and one on a tiny base that is started twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from bases.embedded import EMBEDDED_FORMAT, EMBEDDED_NAME, materialise_embedded
from serve.settings import ServeSettings
from tests.adapters_that_say import Recipe, make_word_adapters
from tests.serve.live.live_server import LiveServer
from tests.serve.live.two_lives import TwoLives, live_twice

# One slot more than adapters at rest, so that the versions of an adapter that is replaced take turns in the last
# slot: vLLM as it is on a CPU mixes that one into base requests.
MAX_LORAS = 3
MAX_CPU_LORAS = 16
CONTEXT_TOKENS = 2048

WORDS = Recipe(
    # The first is what adapter A says; the others are what B says, version after version.
    words=(
        "zebra",
        "anchor",
        "bridge",
        "candle",
        "dragon",
        "engine",
    ),
    questions=("What is the capital of France?",),
    prompts=("The word of the day is",),
)


@pytest.fixture(scope="session")
def default_base() -> Path:
    """The folder of the default base in the home that the settings name: converted once, for all runs."""
    return materialise_embedded(ServeSettings().home)


@pytest.fixture(scope="session")
def kept(request: pytest.FixtureRequest) -> Path:
    """A folder that is still there at the next run."""
    return Path(request.config.cache.mkdir("hotswap-adapters"))


@pytest.fixture(scope="session")
def word_adapters(default_base: Path, kept: Path) -> dict[str, Path]:
    """A folder for each word of WORDS."""
    return make_word_adapters(WORDS, base=default_base, kept=kept)


@pytest.fixture(scope="session")
def server(default_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The shared server. float32, so that numbers can be compared on any machine."""
    home = tmp_path_factory.mktemp("home")
    converted = home / "bases" / EMBEDDED_NAME / EMBEDDED_FORMAT
    converted.parent.mkdir(parents=True)
    converted.symlink_to(default_base)
    live = LiveServer(
        home,
        "--dtype=float32",
        "--kv-cache-gib=0.5",
        f"--max-model-len={CONTEXT_TOKENS}",
        "--max-num-seqs=32",
        f"--max-loras={MAX_LORAS}",
        f"--max-cpu-loras={MAX_CPU_LORAS}",
        "--max-lora-rank=16",
    )
    with live:
        yield live
    assert live.process.returncode == 0, "".join(live.log[-40:])


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """A client of the shared server."""
    with server.client() as client:
        yield client


@pytest.fixture
def put(server: LiveServer) -> Callable[[Path, str], str]:
    """Copies an adapter below the server's adapter root; returns the source to load it from."""

    def copy(folder: Path, name: str) -> str:
        shutil.copytree(folder, server.adapter_root / name, dirs_exist_ok=True)
        return name

    return copy


@pytest.fixture
def no_adapters_after(http: httpx.Client) -> Iterator[None]:
    """Unloads whatever the test has loaded."""
    yield
    for adapter in http.get("/admin/adapters").json()["adapters"]:
        http.delete(f"/admin/adapters/{adapter['name']}").raise_for_status()


@pytest.fixture(scope="session")
def two_lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoLives]:
    """A server on a tiny thinking base after its restart, and what its first life said."""
    with live_twice(tmp_path_factory.mktemp("tiny-home")) as lives:
        yield lives
