"""How the service that fine-tuning tutorials end with is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.load.peers.peer import KINDS, Peer
from benchmarks.server import ServerSpec

MODULE = "benchmarks.load.peers.tutorial_service"
NOTE = (
    "tutorial: it answers in one piece, so that it has no TTFT, TPOT or ICL; its tokens count as spread evenly "
    "over each answer's time"
)


def tutorial_peer(base_path: Path) -> Peer:
    """One process, the checkpoint's own number format, nothing tuned."""
    command = (sys.executable, "-m", MODULE, "--model", str(base_path), "--port", "{port}")
    spec = ServerSpec("tutorial", KINDS["tutorial"], "", "/openapi.json", command, dict(os.environ))
    return Peer(spec, ("tutorial",), adapters=False, streams=False, one_process=True, notes=(NOTE,))
