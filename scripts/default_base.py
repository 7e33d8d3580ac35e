"""Convert the default base if it is not there yet. Run with the environment's Python; prints its folder."""

from __future__ import annotations

import sys

from bases.embedded import materialise_embedded
from bases.errors import HotswapError
from bases.settings import BasesSettings


def main() -> int:
    """Progress goes to standard error, the folder to standard output. Returns the exit status."""
    try:
        folder = materialise_embedded(
            BasesSettings().home, progress=lambda line: print(f"    {line}", file=sys.stderr, flush=True)
        )
    except HotswapError as error:
        print(error, file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
