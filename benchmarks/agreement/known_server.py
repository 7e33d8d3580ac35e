"""A gateway whose scripted engine has known delays: `known_server PORT HOME SEQUENCES SCRIPT`, SCRIPT as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.server import ServerSpec


def known_server(
    name: str, home: Path, script: Mapping[str, float], *, max_num_seqs: int = 256
) -> ServerSpec:
    """How to start one; `script` holds fields of serve.engine.scripted.Script."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOTSWAP_")}
    arguments = ["{port}", str(home), str(max_num_seqs), json.dumps(dict(script))]
    command = [sys.executable, "-m", "benchmarks.agreement.known_server", *arguments]
    return ServerSpec(name, "A gateway with known delays", "scripted", "/readyz", command, environment)


def main(port: str, home: str, sequences: str, script: str) -> int:
    """Serve until told to stop; the exit code."""
    from serve.engine.scripted import Script, ScriptedEngine
    from serve.server import serve
    from serve.settings import load_settings

    settings = load_settings(engine="scripted", port=int(port), home=home, max_num_seqs=int(sequences))
    engine = ScriptedEngine(Script(**json.loads(script)), max_num_seqs=int(sequences))
    return serve(settings, engine=engine)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
