"""A base from the Hugging Face hub: the revision becomes a commit, then what serving needs comes down.

Pickle weights are never fetched, Python files only where the caller trusts them. The files lie in the hub's
own cache (`HF_HOME`), shared with every other program that uses it.
"""

from __future__ import annotations

import re
from pathlib import Path

from bases.errors import BaseInvalidError, BaseNotFoundError
from bases.progress import Progress, log_progress

HUB_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[^@\s]+))?")
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model", "*.tiktoken"]
# The same weights a second time, in the shapes of other programs.
_UNWANTED = ["original/*", "onnx/*", "consolidated*"]


def download_base(
    repository: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress = log_progress,
) -> tuple[Path, str]:
    """Return (folder, commit sha) of `repository` at `revision` (branch, tag or commit; default: main).

    Without a connection, what an earlier download left in the hub's cache is used.
    Raises BaseNotFoundError if the hub refuses, or cannot be reached and nothing is cached; BaseInvalidError
    if the repository has no safetensors weights (found out before the download).
    """
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    name = f"{repository}@{revision}" if revision else repository
    progress(f"Asking the Hugging Face hub for {name}")
    try:
        info = huggingface_hub.model_info(repository, revision=revision)
    except errors.GatedRepoError as error:
        raise BaseNotFoundError(
            f"Hub model {name} is gated. Accept its terms on https://huggingface.co/{repository}, then sign "
            "in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BaseNotFoundError(
            f"Hub model {repository} has no revision {revision!r}. "
            "Name a branch, a tag or a whole commit sha."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise BaseNotFoundError(
            f"The hub has no model {repository!r}, or it is private. Check the spelling; for a private model "
            "sign in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.HFValidationError as error:
        raise BaseNotFoundError(f"{repository!r} is not a hub id: {error}") from error
    except (OSError, httpx.HTTPError) as error:
        progress(f"The hub cannot be reached ({_first_line(error)}); looking in its cache on this machine")
        return _cached(repository, revision, trust_remote_code, error)

    if not info.sha:
        raise BaseNotFoundError(f"The hub did not say which commit {name} is; name a commit sha.")
    files = [sibling.rfilename for sibling in info.siblings or []]
    if files and not any(file.endswith(".safetensors") for file in files):
        raise BaseInvalidError(
            f"Hub model {name} has no safetensors weights (pickle weights run code when loaded and are "
            "refused). Choose a repository that has them, or convert it with save_pretrained in transformers."
        )
    progress(f"Fetching {repository} at commit {info.sha}")
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=info.sha,
            allow_patterns=_patterns(trust_remote_code),
            ignore_patterns=_UNWANTED,
        )
    except (OSError, httpx.HTTPError) as error:
        raise BaseNotFoundError(
            f"The download of hub model {name} (commit {info.sha}) broke off: {_first_line(error)}. "
            "Run it again: it goes on where it stopped."
        ) from error
    return Path(str(folder)), str(info.sha)


def _cached(
    repository: str, revision: str | None, trust_remote_code: bool, cause: Exception
) -> tuple[Path, str]:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_patterns(trust_remote_code),
            ignore_patterns=_UNWANTED,
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError as error:
        name = f"{repository}@{revision}" if revision else repository
        raise BaseNotFoundError(
            f"Hub model {name} is not on this machine and the hub cannot be reached: {_first_line(cause)}. "
            "Tried the hub, then its cache (HF_HOME). Check the network and HF_HUB_OFFLINE, or fetch it "
            f"elsewhere with `hf download {repository}` and name the folder."
        ) from error
    # The cache lays a snapshot out under its commit: .../snapshots/<sha>/
    return Path(str(folder)), Path(str(folder)).name


def _patterns(trust_remote_code: bool) -> list[str]:
    return [*_WANTED, "*.py"] if trust_remote_code else list(_WANTED)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
