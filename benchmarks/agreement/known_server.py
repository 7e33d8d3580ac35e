"""A gateway whose scripted engine has known delays: `known_server PORT HOME SEQUENCES SCRIPT [MOMENTS]`.

SCRIPT is JSON, MOMENTS a file that the engine writes its own times into.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.server import ServerSpec


def known_server(
    name: str,
    home: Path,
    script: Mapping[str, float],
    *,
    max_num_seqs: int = 256,
    moments: Path | None = None,
) -> ServerSpec:
    """How to start one; `script` holds fields of serve.engine.scripted.Script.

    `moments`: a file that the engine writes its own times into, for timed_engine.read_moments.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOTSWAP_")}
    arguments = ["{port}", str(home), str(max_num_seqs), json.dumps(dict(script))]
    if moments is not None:
        arguments.append(str(moments))
    command = [sys.executable, "-m", "benchmarks.agreement.known_server", *arguments]
    return ServerSpec(name, "A gateway with known delays", "scripted", "/readyz", command, environment)


def main(port: str, home: str, sequences: str, script: str, moments: str | None = None) -> int:
    """Serve until told to stop; the exit code."""
    from benchmarks.agreement.timed_engine import TimedEngine
    from serve.engine.scripted import Script, ScriptedEngine
    from serve.server import serve
    from serve.settings import load_settings

    settings = load_settings(engine="scripted", port=int(port), home=home, max_num_seqs=int(sequences))
    behaviour, most = Script(**json.loads(script)), int(sequences)
    engine = (
        TimedEngine(behaviour, Path(moments), max_num_seqs=most, keep_requests=False)
        if moments is not None
        else ScriptedEngine(behaviour, max_num_seqs=most, keep_requests=False)
    )
    return serve(settings, engine=engine)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
