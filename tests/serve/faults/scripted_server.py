"""A server process whose scripted engine behaves as the test says.

`python -m tests.serve.faults.scripted_server '{"tpot_seconds": 0.1}' '{"drain_seconds": 1}'`: the fields of
serve.engine.scripted.Script, then settings. Everything else is what `hotswap serve` does.
"""

from __future__ import annotations

import json
import sys

from serve.engine.scripted import Script, ScriptedEngine
from serve.observability.logs import configure_logging
from serve.server import serve
from serve.settings import load_settings

if __name__ == "__main__":
    script, given = (json.loads(argument) for argument in sys.argv[1:])
    configure_logging(log_format="human", level="info", access_log=True)
    sys.exit(
        serve(load_settings(engine="scripted", port=0, **given), engine=ScriptedEngine(Script(**script)))
    )
