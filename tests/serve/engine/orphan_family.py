"""A parent that starts a child of the given name, says its number, and waits to be killed."""

from __future__ import annotations

import multiprocessing
import sys
import time

from serve.engine.orphan import follow_parent


def live() -> None:
    """What the child does."""
    follow_parent()
    print("follows", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=live, name=sys.argv[1])
    child.start()
    print(child.pid, flush=True)
    child.join()
