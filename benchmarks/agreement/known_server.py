"""A gateway whose scripted engine has known delays: `known_server PORT HOME SCRIPT`, SCRIPT as JSON."""

from __future__ import annotations

import json
import sys

from serve.engine.scripted import Script, ScriptedEngine
from serve.server import serve
from serve.settings import load_settings

if __name__ == "__main__":
    port, home, script = sys.argv[1:]
    settings = load_settings(engine="scripted", port=int(port), home=home, max_num_seqs=256)
    sys.exit(serve(settings, engine=ScriptedEngine(Script(**json.loads(script)), max_num_seqs=256)))
