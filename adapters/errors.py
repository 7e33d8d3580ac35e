"""Every error the adapters room raises on purpose.

AdapterError                          an adapter cannot be used
├── AdapterNameError                  a public name or reference is malformed or reserved
├── AdapterSourceError                the named folder is not one that may be read
├── AdapterFetchError                 the remote store that holds an adapter failed
├── AdapterFileError                  one file of an adapter is not what its name says
│   └── SafetensorsHeaderError        the header of the weights file breaks a rule of the format
├── AdapterCheckError                 the check found problems; holds the whole report
├── AdapterChangedError               the files changed between the check and the copy
├── AdapterNotFoundError              no such alias or version
├── AdapterConflictError              somebody else changed it first, or it is still in use
├── AdapterStoreError                 the folder that keeps the versions failed
│   ├── AdapterStoreFullError         no space left
│   └── AdapterStoreReadOnlyError     not writable
├── DataError                         examples cannot be read or used; names the file and the line
├── TrainingError                     a training run cannot start or go on
│   └── TrainingSettingsError         settings that do not fit together, the base or the data
├── ExportError                       what was trained cannot be saved as an adapter that is served exactly
│   └── NotServableError              the method has no LoRA form; it trains and evaluates all the same
├── MergeError                       an adapter cannot be merged into a base
├── EvaluationError                   an evaluation cannot be made
└── RegistryError                     the database that keeps the desired state failed
    ├── RegistryUrlError              the URL is malformed, unsupported, or its driver is not installed
    ├── RegistryUnavailableError      the database does not answer or stays locked
    └── KeyNotFoundError              no API key has that id
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bases.errors import HotswapError

if TYPE_CHECKING:
    from adapters.report import CheckReport


class AdapterError(HotswapError):
    """An adapter cannot be used."""

    code: ClassVar[str] = "adapter_error"


class AdapterNameError(AdapterError):
    """A public name or a reference to a version is malformed or reserved."""

    code: ClassVar[str] = "adapter_name_invalid"


class AdapterSourceError(AdapterError):
    """The named folder is not one that may be read. The text never holds a path of this machine."""

    code: ClassVar[str] = "adapter_source_refused"


class AdapterFetchError(AdapterError):
    """The remote store that holds an adapter does not answer, or breaks off. The text names no credentials."""

    code: ClassVar[str] = "adapter_fetch_failed"


class AdapterFileError(AdapterError):
    """One file of an adapter is not what its name says."""

    code: ClassVar[str] = "adapter_file_invalid"


class SafetensorsHeaderError(AdapterFileError):
    """The header of a safetensors file breaks a rule of the format.

    `reason` is "dtype" where the file is well formed but holds a type that no adapter may have.
    """

    code: ClassVar[str] = "safetensors_invalid"

    def __init__(self, message: str, *, reason: Literal["layout", "dtype"] = "layout") -> None:
        super().__init__(message)
        self.reason = reason


class AdapterCheckError(AdapterError):
    """The check before loading found problems; `report` lists all of them."""

    code: ClassVar[str] = "adapter_check_failed"

    def __init__(self, report: CheckReport) -> None:
        count = len(report.problems)
        noun = "problem" if count == 1 else "problems"
        listed = "; ".join(f"{problem.code}: {problem.message}" for problem in report.problems)
        super().__init__(f"The adapter has {count} {noun}: {listed}")
        self.report = report


class AdapterChangedError(AdapterError):
    """The files of an adapter changed between the check and the copy into the store."""

    code: ClassVar[str] = "adapter_changed"


class AdapterNotFoundError(AdapterError):
    """No alias or version of that name is known."""

    code: ClassVar[str] = "adapter_not_found"


class AdapterConflictError(AdapterError):
    """The adapter was changed by somebody else first, or is still in use."""

    code: ClassVar[str] = "adapter_conflict"


class AdapterStoreError(AdapterError):
    """The folder that keeps the versions failed."""

    code: ClassVar[str] = "adapter_store_failed"


class AdapterStoreFullError(AdapterStoreError):
    """No space is left where the versions are kept."""

    code: ClassVar[str] = "adapter_store_full"


class AdapterStoreReadOnlyError(AdapterStoreError):
    """The folder that keeps the versions cannot be written."""

    code: ClassVar[str] = "adapter_store_read_only"


class RegistryError(AdapterError):
    """The database that keeps the desired state failed."""

    code: ClassVar[str] = "registry_failed"


class RegistryUrlError(RegistryError):
    """The registry's URL is malformed, unsupported, or its driver is not installed."""

    code: ClassVar[str] = "registry_url_invalid"


class RegistryUnavailableError(RegistryError):
    """The registry's database does not answer or stays locked."""

    code: ClassVar[str] = "registry_unavailable"


class KeyNotFoundError(RegistryError):
    """No API key has that id."""

    code: ClassVar[str] = "key_not_found"


class DataError(AdapterError):
    """Examples cannot be read or used.

    The text starts with the file and, where there is one, the line: `data.jsonl:17: ...`, then what to do.
    """

    code: ClassVar[str] = "data_invalid"


class TrainingError(AdapterError):
    """A training run cannot start or go on."""

    code: ClassVar[str] = "training_failed"


class TrainingSettingsError(TrainingError):
    """Settings that do not fit together, the base or the data. Names the flags as the user types them."""

    code: ClassVar[str] = "training_settings_invalid"


class ExportError(AdapterError):
    """What was trained cannot be saved as an adapter that is served exactly; holds the measured error."""

    code: ClassVar[str] = "export_failed"


class NotServableError(ExportError):
    """The method has no LoRA form (prefix and prompt tuning); it trains and evaluates all the same."""

    code: ClassVar[str] = "not_servable"


class MergeError(AdapterError):
    """An adapter cannot be merged into a base, or the merged base does not answer as the two did."""

    code: ClassVar[str] = "merge_failed"


class EvaluationError(AdapterError):
    """An evaluation cannot be made."""

    code: ClassVar[str] = "evaluation_failed"
