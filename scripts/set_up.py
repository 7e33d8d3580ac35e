"""Everything that `make serve` and `make test` need, from nothing: environment, packages, default base, kernels.

Does only what has not been done: a second run takes a fraction of a second, and one after an
interruption goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.environment import Environment
from scripts.pip_install import PipError
from scripts.preflight import choose_device, find_problems
from scripts.stamp import file_digest, read_stamp

BASE_MEMO_NAME = "hotswap-base.json"
"""In the environment: where the default base was when set-up last looked, so that looking again is cheap."""

KERNELS_MEMO_NAME = "hotswap-kernels.json"
"""In the environment: the compiled kernels, or the compiler that failed on them, so that it is tried once."""

_KERNELS_SOURCE = Path("serve", "engine", "cpu", "lowbit")


class SetUpError(Exception):
    """Set-up cannot go on; the text says why and what to do."""


def main(arguments: list[str]) -> int:
    """Run set-up; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make install", description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto")
    parser.add_argument("--no-base", action="store_true", help="do not convert the default base")
    parser.add_argument("--no-project", action="store_true", help="only what is in the lock")
    given = parser.parse_args(arguments)
    repository = Path(__file__).resolve().parent.parent
    folder = repository / ".venv"
    try:
        with _only_set_up(repository):
            _set_up_packages(folder, repository, given.device, project=not given.no_project)
            if not (given.no_base or given.no_project):
                _set_up_base(folder, repository)
                _set_up_kernels(folder, repository)
    except (SetUpError, PipError, OSError, subprocess.CalledProcessError) as error:
        print(f"\nset-up failed: {error}\nThe next run goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up interrupted; the next run goes on from here.", file=sys.stderr)
        return 130
    return 0


def _set_up_packages(folder: Path, repository: Path, wanted: str, *, project: bool) -> None:
    held = read_stamp(folder)
    device, reason = choose_device(wanted, held.device if held else None)
    environment = Environment(folder, repository, device)
    if environment.is_complete(project=project):
        return
    started = time.monotonic()
    print(f"Setting up Hotswap for {device} ({reason}). The first time takes some minutes.", flush=True)
    if problems := find_problems(device, repository):
        raise SetUpError("\n".join(["this machine lacks something:", *(f"  - {line}" for line in problems)]))
    environment.complete(project=project)
    print(f"Packages are in place after {time.monotonic() - started:.0f} s.", flush=True)


def _set_up_base(folder: Path, repository: Path) -> None:
    memo = folder / BASE_MEMO_NAME
    key = {
        "home": os.environ.get("HOTSWAP_HOME", ""),
        "conversion": file_digest(repository / "bases" / "embedded.py"),
    }
    if _base_is_there(memo, key):
        return
    started = time.monotonic()
    command: list[str | Path] = [folder / "bin" / "python", "-m", "scripts.default_base"]
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SetUpError("the default base could not be made")
    base = done.stdout.splitlines()[-1]
    memo.write_text(json.dumps({**key, "folder": base}) + "\n")
    print(f"The default base is in {base} ({time.monotonic() - started:.0f} s).", flush=True)


def _base_is_there(memo: Path, key: dict[str, str]) -> bool:
    try:
        known = json.loads(memo.read_text())
        base = Path(known.pop("folder"))
    except (OSError, ValueError, KeyError):
        return False
    return bool(known == key) and (base / "config.json").is_file() and (base / "model.safetensors").is_file()


def _set_up_kernels(folder: Path, repository: Path) -> None:
    """Compile the kernels for quantised bases on CPUs. Never fails the set-up: PyTorch can do their work."""
    held = read_stamp(folder)
    if held is None or held.device != "cpu":
        return
    memo = folder / KERNELS_MEMO_NAME
    key = _kernels_key(repository, held.lock_digest)
    if _kernels_were_tried(memo, key):
        return
    started = time.monotonic()
    print("Kernels for quantised bases:", flush=True)
    command: list[str | Path] = [folder / "bin" / "python", "-m", "serve.engine.cpu.lowbit.build"]
    done = subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, text=True, check=False)
    library = done.stdout.splitlines()[-1] if done.returncode == 0 and done.stdout else ""
    try:
        memo.write_text(json.dumps({**key, "library": library}) + "\n")
    except OSError as error:
        print(f"  ({memo} cannot be written: {error})", flush=True)
    text = (
        "ready" if library else "not built, see above; everything works without them, quantised bases slower"
    )
    print(f"The kernels are {text} ({time.monotonic() - started:.0f} s).", flush=True)


def _kernels_key(repository: Path, lock_digest: str) -> dict[str, str]:
    """What decides whether compiling again could come to something else."""
    files = sorted(
        path for path in (repository / _KERNELS_SOURCE).rglob("*") if path.suffix in {".py", ".cpp", ".h"}
    )
    named = os.environ.get("CXX", "").strip()
    return {
        "home": os.environ.get("HOTSWAP_HOME", ""),
        "lock": lock_digest,
        "source": hashlib.sha256("".join(file_digest(path) for path in files).encode()).hexdigest(),
        "compiler": next(
            (path for name in ([named] if named else ["g++", "c++"]) if (path := shutil.which(name))), ""
        ),
    }


def _kernels_were_tried(memo: Path, key: dict[str, str]) -> bool:
    try:
        known = json.loads(memo.read_text())
        library = known.pop("library")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(known == key) and (library == "" or Path(library).is_file())


@contextmanager
def _only_set_up(repository: Path) -> Iterator[None]:
    """One set-up at a time in a checkout; the lock goes with the process."""
    descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is running in this checkout; waiting for it.", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
