from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.artefact import WEIGHTS_NAME, read_artefact
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterFileError
from adapters.manifest import Manifest, build_manifest, parse_manifest, verify_manifest, write_manifest


@pytest.fixture
def manifest(adapter) -> Manifest:
    return build_manifest(
        adapter,
        base_fingerprint="f" * 64,
        base_name="tiny",
        libraries={"peft": "0.21.2"},
        training={"steps": 100, "learning_rate": 0.001},
    )


def test_a_manifest_describes_the_files_next_to_it(adapter, manifest):
    assert manifest.digest == check_adapter(adapter, target=None).facts.digest
    assert manifest.files == {
        name: hashlib.sha256((adapter / name).read_bytes()).hexdigest()
        for name in (CONFIG_NAME, WEIGHTS_NAME)
    }
    assert manifest.created_at.utcoffset() == timedelta(0)


def test_a_manifest_comes_back_as_it_was_written(adapter, manifest):
    path = write_manifest(adapter, manifest)
    assert parse_manifest(path.read_bytes()) == manifest
    assert not list(adapter.glob(".*"))


def test_a_manifest_needs_an_adapter(tmp_path):
    with pytest.raises(AdapterFileError, match="There is no adapter_config"):
        build_manifest(tmp_path, base_fingerprint="f", base_name="", libraries={})


def verify(adapter: Path, manifest: Manifest, digest: str | None = None) -> list[tuple[str, str]]:
    with read_artefact(adapter) as artefact:
        return [(p.code, p.subject) for p in verify_manifest(manifest, artefact, digest=digest)]


def test_untouched_files_verify(adapter, manifest):
    assert verify(adapter, manifest, manifest.digest) == []


def test_a_changed_file_is_named(adapter, manifest):
    path = adapter / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert verify(adapter, manifest) == [("hash_mismatch", WEIGHTS_NAME)]


def test_a_file_that_came_later_or_went_is_named(adapter, manifest):
    (adapter / "hotswap_probe.json").write_text("{}")
    assert verify(adapter, manifest) == [("hash_mismatch", "hotswap_probe.json")]
    with_probe = build_manifest(adapter, base_fingerprint="f", base_name="", libraries={})
    (adapter / "hotswap_probe.json").unlink()
    assert verify(adapter, with_probe) == [("hash_mismatch", "hotswap_probe.json")]


def test_a_digest_of_something_else_is_named(adapter, manifest):
    assert verify(adapter, manifest, "0" * 64) == [("hash_mismatch", "hotswap.json")]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"digest": "short"}, "digest"),
        ({"digest": "A" * 64}, "digest"),
        ({"files": {"../etc/passwd": "0" * 64}}, "files"),
        ({"files": {WEIGHTS_NAME: "0" * 64 + "\n"}}, "files"),
        ({"created_at": "2026-11-22T10:00:00"}, "created_at"),
        ({"base": {"fingerprint": "", "name": "x"}}, "base.fingerprint"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_malformed_manifest_is_refused_naming_the_field(manifest, change, field):
    values = manifest.model_dump(mode="json") | change
    with pytest.raises(AdapterFileError, match=field.replace(".", r"\.")):
        parse_manifest(json.dumps(values).encode())
