"""Make requirements/cpu.lock and requirements/gpu.lock from their inputs. Run by `make lock`.

What is locked already stays as it is unless `--upgrade` or `--upgrade-package NAME` is given (passed to uv).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

DEVICES = ("cpu", "gpu")
UV_REQUIREMENT = "uv==0.13.9"
PYTHON_VERSION = "3.11"
PLATFORM = "x86_64-manylinux_2_31"
"""Linux with glibc 2.31 or newer (Debian 11, Ubuntu 20.04): llguidance has no wheel for an older one."""

HEADER = """\
# The complete {device} environment. Made by `make lock` from {device}.in and overrides-{device}.txt.
# Installed with --no-deps, because no resolver takes it: two packages pin compressed-tensors differently.
"""


def compile_arguments(device: str, output: Path, extra: list[str]) -> list[str]:
    """The arguments of uv for one lock; paths are relative, so none of this machine gets in."""
    return [
        *("pip", "compile", f"requirements/{device}.in"),
        *("--override", f"requirements/overrides-{device}.txt"),
        *("--python-version", PYTHON_VERSION, "--python-platform", PLATFORM),
        # Wheels only: set-up must not need a compiler.
        *("--only-binary", ":all:"),
        *("--no-header", "--annotation-style", "line", "--quiet", "--output-file", str(output)),
        *extra,
    ]


def main(extra: list[str]) -> int:
    """Write both locks; on failure neither is touched. Returns the exit status."""
    repository = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="hotswap-lock-") as folder:
        scratch = Path(folder)
        print(f"Installing {UV_REQUIREMENT} into a scratch environment", flush=True)
        venv.create(scratch / "venv", with_pip=True, symlinks=True)
        python = scratch / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", UV_REQUIREMENT], check=True)
        uv = scratch / "venv" / "bin" / "uv"
        made: dict[Path, str] = {}
        for device in DEVICES:
            target = repository / "requirements" / f"{device}.lock"
            print(f"Resolving requirements/{device}.in", flush=True)
            output = scratch / f"{device}.lock"
            if target.is_file():
                output.write_text(target.read_text())
            done = subprocess.run(
                [uv, *compile_arguments(device, output, extra)], cwd=repository, check=False
            )
            if done.returncode != 0:
                return done.returncode
            made[target] = HEADER.format(device=device) + output.read_text()
    for target, text in made.items():
        unchanged = target.is_file() and target.read_text() == text
        target.write_text(text)
        print(f"requirements/{target.name}: {'unchanged' if unchanged else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
