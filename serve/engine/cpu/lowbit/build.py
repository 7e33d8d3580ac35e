"""Compile the kernels with this machine's C++ compiler, once, into the home: part of set-up, never of serving.

`<home>/kernels/<key>/` either does not exist or holds a library that was compiled, loaded and compared with PyTorch
on this machine: it is built in a sibling folder under a file lock and moved into place in one step.
`python -m serve.engine.cpu.lowbit.build` does it by hand; exit code 1 where there is no library afterwards.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bases.errors import HotswapError
from bases.process_lock import only_process
from bases.progress import Progress, log_progress
from bases.settings import BasesSettings
from serve.engine.cpu.lowbit import source

COMPILER_VARIABLE = "CXX"
COMPILERS = ("g++", "c++")
COMPILER_HINT = "Debian and Ubuntu: apt-get install g++"

_CHECKOUT = Path(__file__).resolve().parents[4]
_COMPILE_SECONDS = 600.0
_CHECK_SECONDS = 300.0
_PARTIAL_PREFIX = ".partial-"
_WAITING = "Another process is compiling the low-bit kernels; waiting for it"


class KernelBuildError(HotswapError):
    """The kernels could not be compiled, or compute something else than PyTorch; the text says what was tried."""

    code: ClassVar[str] = "kernel_build_failed"


def find_compiler() -> str | None:
    """Path of the C++ compiler: what CXX names, else g++, else c++; None where there is none."""
    named = os.environ.get(COMPILER_VARIABLE, "").strip()
    return next((path for name in ([named] if named else COMPILERS) if (path := shutil.which(name))), None)


def build_library(home: Path, *, progress: Progress = log_progress, compiler: str | None = None) -> Path:
    """Path of the library, compiled first if it is not there: about 15 s of two cores. Raises KernelBuildError.

    Processes that start together compile once; the others wait and say so.
    """
    _torch_folder()
    target = source.library_folder(home)
    if found := source.find_library(home):
        return found
    if platform.machine() != "x86_64":
        raise KernelBuildError(
            f"The low-bit kernels are for x86-64, this is {platform.machine()}: PyTorch does their work."
        )
    compiler = compiler or find_compiler()
    if compiler is None:
        raise KernelBuildError(
            "No C++ compiler (g++) was found, so quantised bases are computed by PyTorch, which is several times "
            f"slower. {COMPILER_HINT}, then run set-up again."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_process(target.parent / ".lock", lambda: progress(_WAITING)):
            if source.find_library(home) is None:
                _build(target, compiler, progress)
    except OSError as error:
        raise KernelBuildError(f"The low-bit kernels cannot be written to {target}: {error}.") from error
    return target / source.LIBRARY_NAME


def _build(target: Path, compiler: str, progress: Progress) -> None:
    """Build `target` beside its place and move it there; the caller holds the lock."""
    for leftover in target.parent.glob(f"{_PARTIAL_PREFIX}*"):
        shutil.rmtree(leftover)
    progress(f"Compiling the low-bit kernels with {compiler}, once, into {target}")
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=target.parent))
    try:
        _compile(partial, compiler)
        progress("Comparing the low-bit kernels with PyTorch")
        isa = _check(partial / source.LIBRARY_NAME)
        record = {"compiler": _version(compiler), "torch": source.torch_version(), "checked_isa": isa}
        (partial / source.RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")
        partial.chmod(0o755)
        if target.exists():  # its library was removed by hand
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("The low-bit kernels are ready")


def _compile(folder: Path, compiler: str) -> None:
    """Object files at once, one process each, then the library."""
    torch_folder = _torch_folder()
    common: list[str | Path] = [compiler, *source.COMMON_FLAGS]
    commands: list[list[str | Path]] = [
        [
            *common,
            *source.KERNEL_FLAGS,
            *flags,
            f"-DHOTSWAP_ISA={isa}",
            "-c",
            "isa.cpp",
            "-o",
            folder / f"{isa}.o",
        ]
        for isa, flags in source.ISA_FLAGS.items()
    ]
    include = torch_folder / "include"
    headers: list[str | Path] = [
        "-isystem",
        include,
        "-isystem",
        include / "torch" / "csrc" / "api" / "include",
    ]
    commands.append(
        [*common, *source.BINDING_FLAGS, *headers, "-c", "bindings.cpp", "-o", folder / "bindings.o"]
    )
    _run(commands)
    objects = sorted(folder.glob("*.o"))
    libraries: list[str | Path] = [
        "-L",
        torch_folder / "lib",
        "-lc10",
        "-ltorch_cpu",
        openmp_of(torch_folder),
    ]
    _run([[compiler, "-shared", *objects, *libraries, "-o", folder / source.LIBRARY_NAME]])
    for path in objects:
        path.unlink()


def openmp_of(torch_folder: Path) -> Path | str:
    """torch's own OpenMP library, to be linked against: a second one would be a second pool of threads.

    Where the wheel carries none, torch uses the system's, and so does the flag.
    """
    carried = sorted((torch_folder / "lib").glob("libgomp*.so*"))
    return carried[0] if carried else "-fopenmp"


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise KernelBuildError(
            "torch is not installed, and the kernels are compiled for it: run set-up first."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _run(commands: Sequence[Sequence[str | Path]]) -> None:
    """Run the commands at once in the source's folder; raises KernelBuildError with what a compiler said."""
    running = [
        subprocess.Popen(
            command,
            cwd=source.SOURCE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for command in commands
    ]
    try:
        for process in running:
            output, _ = process.communicate(timeout=_COMPILE_SECONDS)
            if process.returncode != 0:
                raise KernelBuildError(
                    f"The low-bit kernels do not compile (exit code {process.returncode}), "
                    f"so PyTorch does their work: {_tail(output)}"
                )
    except subprocess.TimeoutExpired as error:
        raise KernelBuildError(
            f"The low-bit kernels were not compiled within {error.timeout:.0f} s."
        ) from error
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _check(library: Path) -> str:
    """Load the library in a process of its own and compare; the instruction set it chose, "" for none here."""
    command: list[str | Path] = [sys.executable, "-m", "serve.engine.cpu.lowbit.check", library]
    try:
        done = subprocess.run(
            command, cwd=_CHECKOUT, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise KernelBuildError(
            f"The compiled kernels did not answer within {error.timeout:.0f} s."
        ) from error
    if done.returncode != 0:
        raise KernelBuildError(
            f"The compiled kernels are not used, since their check failed: {_tail(done.stdout + done.stderr)}"
        )
    return done.stdout.strip()


def _version(compiler: str) -> str:
    asked = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return asked.stdout.partition("\n")[0].strip()


def _tail(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return "; ".join((errors or lines)[-3:]) or "no output"


def main() -> int:
    """Build; the library's path goes to standard output, the rest to standard error. Returns the exit status."""
    try:
        path = build_library(BasesSettings().home, progress=_tell)
    except HotswapError as error:
        _tell(str(error))
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"    {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
