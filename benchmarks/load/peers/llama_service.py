"""llama.cpp's own HTTP server from the Python package xllamacpp, with those flags of `llama-server` that we use.

It runs in an environment of its own, where nothing of ours is installed, and so imports nothing of ours.
"""

from __future__ import annotations

import argparse
import importlib
import signal
from typing import Any


def parameters(xllamacpp: Any, options: argparse.Namespace) -> Any:
    """The package's CommonParams for `options`."""
    found = xllamacpp.CommonParams()
    found.model.path = options.model
    found.model_alias = {options.alias}
    found.hostnames = [options.host]
    found.port = options.port
    found.cpuparams.n_threads = options.threads
    found.cpuparams_batch.n_threads = options.threads_batch
    found.n_parallel = options.parallel
    found.kv_unified = options.kv_unified
    found.cache_ram_mib = options.cache_ram
    found.n_ctx = options.ctx_size
    found.endpoint_metrics = options.metrics
    found.ui = not options.no_webui
    return found


def main() -> None:
    """`PYTHON llama_service.py --model FILE --port 8000`, or `--build` for what the package was built for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true", help="print the processor features in use, and end")
    parser.add_argument("--model", help="GGUF file")
    parser.add_argument("--alias", default="llamacpp")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=-1)
    parser.add_argument("--threads-batch", type=int, default=-1)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--kv-unified", action="store_true")
    parser.add_argument("--cache-ram", type=int, default=0, help="MiB")
    parser.add_argument("--ctx-size", type=int, default=0, help="tokens; 0: as the model says")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--no-webui", action="store_true")
    options = parser.parse_args()
    xllamacpp = importlib.import_module("xllamacpp")
    if options.build:
        print(xllamacpp.get_system_info())
        return
    if options.model is None:
        parser.error("--model is missing")
    # Blocked before its threads start, so that the signal comes to `sigwait` alone.
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    server = xllamacpp.Server(parameters(xllamacpp, options))
    print(f"listening at {server.listening_address}", flush=True)
    signal.sigwait(endings)
    del server


if __name__ == "__main__":
    main()
