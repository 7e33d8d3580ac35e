"""Where a run lies and what it wrote down about itself: `<home>/runs/<name>/<time>/`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.errors import TrainingError, TrainingSettingsError
from adapters.training.checkpoint import newest_whole
from adapters.training.settings import FREE_ON_RESUME, TrainSettings
from bases.disk import why_unwritten

RECORD_NAME = "settings.json"
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run was started with; a resumed run has to have the same."""

    name: str
    settings: dict[str, Any]
    data_fingerprint: str
    base_fingerprint: str
    num_processes: int
    sources: tuple[tuple[str, str, float], ...] = ()  # (path, task, weight)
    data_settings: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write the record into the run's new folder, which goes if that fails. Raises TrainingError."""
        values = {name: getattr(self, name) for name in self.__slots__}
        partial = folder / f".{RECORD_NAME}.partial"
        try:
            partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            partial.replace(folder / RECORD_NAME)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise TrainingError(
                f"The run's folder {folder} cannot be written: {why_unwritten(error)}"
            ) from error

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read it back. Raises TrainingError when the folder holds none."""
        try:
            values = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
            values["sources"] = tuple((path, task, float(weight)) for path, task, weight in values["sources"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                f"{folder} is not the folder of a run that can go on ({RECORD_NAME}: {error}). "
                "Name one under HOME/runs/NAME/, or leave --resume out to start anew."
            ) from None


@dataclass(frozen=True, slots=True)
class Resumption:
    """A run to go on with, from a whole checkpoint. `passed_over` are newer ones that were cut off by the kill."""

    folder: Path
    record: RunRecord
    checkpoint: Path
    passed_over: tuple[Path, ...]


def new_run_folder(home: Path, name: str, *, now: datetime | None = None) -> Path:
    """Make `<home>/runs/<name>/<utc time>/`, a new one also within the same second."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    root = home / "runs" / name
    for number in range(1000):
        folder = root / (moment if not number else f"{moment}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise TrainingError(
                f"The run's folder {folder} cannot be made: {error.strerror}. Choose another --home."
            ) from None
        return folder
    raise TrainingError(f"{root} holds too many runs of this second; start again.")


def find_resumption(wish: str, *, home: Path, name: str) -> Resumption:
    """The run that `--resume` means and its newest whole checkpoint. Raises TrainingError when there is none."""
    if wish == LATEST:
        root = home / "runs" / name
        # A folder without a record is of a run that stopped before it began.
        folders = sorted(path.parent for path in root.glob(f"*/{RECORD_NAME}"))
        if not folders:
            raise TrainingError(
                f"--resume latest: there is no run in {root}; leave --resume out to start one."
            )
        folder, root_of_checkpoints = folders[-1], folders[-1] / "checkpoints"
        checkpoint, broken = newest_whole(root_of_checkpoints)
    else:
        path = Path(wish).expanduser().absolute()
        if path.parent.name == "checkpoints":
            from adapters.training.checkpoint import is_whole

            folder = path.parent.parent
            checkpoint, broken = (path, []) if is_whole(path) else (None, [path])
        else:
            folder = path
            checkpoint, broken = newest_whole(path / "checkpoints")
    record = RunRecord.read(folder)
    if checkpoint is None:
        cut = f" {', '.join(path.name for path in broken)} is not whole." if broken else ""
        other = _newest_to_go_on_with(folder.parent)
        earlier = f" The newest run of that name that can go on: --resume {other}." if other else ""
        raise TrainingError(
            f"{folder} holds no whole checkpoint to go on from.{cut}{earlier} Start again without --resume; "
            "--save-every-steps makes checkpoints more often."
        )
    return Resumption(folder, record, checkpoint, tuple(broken))


def _newest_to_go_on_with(root: Path) -> Path | None:
    """The newest run below `root` with a whole checkpoint. It is not taken unasked: its settings may be others."""
    folders = sorted((path.parent for path in root.glob(f"*/{RECORD_NAME}")), reverse=True)
    return next((folder for folder in folders if newest_whole(folder / "checkpoints")[0] is not None), None)


def settings_to_resume_with(record: RunRecord, settings: TrainSettings) -> TrainSettings:
    """The recorded settings, base and home among them, with what of `settings` was given now and may change.

    Raises TrainingSettingsError naming every setting that was given now with another value than the run has.
    """
    given = settings.model_dump(mode="json")
    changed, free = [], {}
    for field in sorted(settings.model_fields_set):
        if field in FREE_ON_RESUME:
            free[field] = given[field]
        elif given[field] != record.settings.get(field):
            flag = "--" + field.replace("_", "-")
            changed.append(f"  {flag}: the run has {record.settings.get(field)!r}, now {given[field]!r}")
    if changed:
        raise TrainingSettingsError(
            "a run goes on with the settings it was started with; these differ:\n"
            + "\n".join(changed)
            + "\nLeave them out, or start a new run without --resume."
        )
    return TrainSettings.model_validate({**record.settings, **free})


def expect_same(resumption: Resumption, record: RunRecord) -> None:
    """Raise TrainingError when base, data or number of processes are not those of the run that goes on."""
    before = resumption.record
    if record.base_fingerprint != before.base_fingerprint:
        raise TrainingError(
            f"The base is not the one that {resumption.folder.name} was trained on (fingerprint "
            f"{record.base_fingerprint[:12]}, then {before.base_fingerprint[:12]}). Name that base, or start "
            "a new run."
        )
    if record.data_fingerprint != before.data_fingerprint:
        raise TrainingError(
            f"The data is not what {resumption.folder.name} was trained on (fingerprint "
            f"{record.data_fingerprint[:12]}, then {before.data_fingerprint[:12]}). Restore the files, or start a "
            "new run without --resume."
        )
    if record.num_processes != before.num_processes:
        raise TrainingError(
            f"The run had {before.num_processes} processes, now there are {record.num_processes}. Start as many."
        )
