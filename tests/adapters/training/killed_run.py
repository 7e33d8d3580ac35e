"""A training run that kills itself with SIGKILL: `python -m tests.adapters.training.killed_run JSON`.

The JSON has `sources`, `name`, `settings`, `threads` and `kill_at`: the beginning of the line after which it dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.training.settings import load_train_settings


def main(wish: dict[str, Any]) -> None:
    import torch

    from adapters.training.run import train_adapter

    torch.set_num_threads(wish["threads"])

    def say(text: str) -> None:
        if text.startswith(wish["kill_at"]):
            os.kill(os.getpid(), signal.SIGKILL)

    train_adapter(
        [DataSource(Path(path)) for path in wish["sources"]],
        name=wish["name"],
        settings=load_train_settings(**wish["settings"]),
        data_settings=DataSettings(),
        say=say,
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
