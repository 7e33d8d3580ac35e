"""A gateway of a few lines: starts the fork server, changes its environment, has an engine forked, and waits.

The server imports a small module in place of vLLM.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time

from serve.engine.cpu import forked_core
from serve.engine.orphan import follow_parent

STAND_IN = "tests.serve.engine.cpu.forked_imports"


def live() -> None:
    """What the engine does."""
    follow_parent()
    # As vLLM's engine process does, with the package that vLLM brings.
    importlib.import_module("setproctitle").setproctitle("VLLM::EngineCore")
    said = {
        "pid": os.getpid(),
        "late": os.environ["SET_LATE"],
        "early": os.environ.get("SET_EARLY"),
        "imported": getattr(sys.modules.get(STAND_IN), "SERVER_ID", None) == os.getppid(),
    }
    print(json.dumps(said), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    forked_core.IMPORTS_MODULE = STAND_IN
    assert forked_core.start_server()
    del os.environ["SET_EARLY"]
    os.environ["SET_LATE"] = "set after the server was started"
    engine = forked_core._ForkedContext().Process(target=live, name="EngineCore", kwargs={})
    engine.start()
    engine.join()
    time.sleep(60)
