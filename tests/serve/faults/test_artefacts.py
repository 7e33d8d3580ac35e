"""Rows 12 and 13: adapters that were doctored, or do not fit. None of them reaches the engine."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.manifest import build_manifest, write_manifest
from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import ScriptedEngine
from tests.adapters.conftest import load_tensors, pack, read_weights, write_tensors
from tests.serve.faults.client import REPLY_SECONDS, refusal, resident_mib, strangers, undisturbed

Spoil = Callable[[Path], None]


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


def canary_of(folder: Path) -> Path:
    return folder.parent.parent / f"canary-{folder.name}"


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Canary(canary_of(folder)))


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS_NAME).unlink()
    (folder / "adapter_model.bin").write_bytes(pickled(folder))


def pickle_renamed(folder: Path) -> None:
    (folder / WEIGHTS_NAME).write_bytes(pickled(folder))


def link_out_of_root(folder: Path) -> None:
    outside = folder.parent.parent / f"outside-{folder.name}"
    (folder / WEIGHTS_NAME).rename(outside)
    (folder / WEIGHTS_NAME).symlink_to(outside)


def hard_link(folder: Path) -> None:
    os.link(folder / WEIGHTS_NAME, folder.parent.parent / f"linked-{folder.name}")


def config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / CONFIG_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def header_of_2_to_63_bytes(folder: Path) -> None:
    raw = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes((2**63).to_bytes(8, "little") + raw[8:])


def overlapping_offsets(folder: Path) -> None:
    header, data = read_weights(folder)
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    header[second]["shape"] = header[first]["shape"]
    (folder / WEIGHTS_NAME).write_bytes(pack(header, data))


def offsets_behind_the_file(folder: Path) -> None:
    header, data = read_weights(folder)
    name = [name for name in header if name != "__metadata__"][-1]
    begin, _ = header[name]["data_offsets"]
    header[name] |= {"data_offsets": [begin, begin + 4 * 2**40], "shape": [2**20, 2**20]}
    (folder / WEIGHTS_NAME).write_bytes(pack(header, data))


def truncated(folder: Path) -> None:
    raw = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(raw[:-7])


def emptied(folder: Path) -> None:
    (folder / WEIGHTS_NAME).write_bytes(b"")


def left_overs(folder: Path) -> None:
    with (folder / WEIGHTS_NAME).open("ab") as file:
        file.write(b"\0" * 64)


def tensors(change: Callable[[Any], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        write_tensors(
            folder / WEIGHTS_NAME, {name: change(value) for name, value in load_tensors(folder).items()}
        )

    return spoil


def with_nan(values: Any) -> Any:
    values = values.copy()
    values.flat[0] = float("nan")
    return values


def other_base(folder: Path) -> None:
    write_manifest(
        folder, build_manifest(folder, base_fingerprint="1" * 64, base_name="another", libraries={})
    )


def untouched(folder: Path) -> None:
    """What is wrong is in how it was made."""


def changed_after_manifest(folder: Path) -> None:
    write_manifest(
        folder, build_manifest(folder, base_fingerprint="0" * 64, base_name="scripted", libraries={})
    )
    config(lora_alpha=9)(folder)


# Case -> (how it is spoiled, code of the problem, options of the adapter it is made from)
DOCTORED: dict[str, tuple[Spoil, str, dict[str, Any]]] = {
    "only a pickle": (pickle_only, "weights_pickle_only", {}),
    "a pickle renamed": (pickle_renamed, "safetensors_invalid", {}),
    "a link out of the root": (link_out_of_root, "unsafe_file", {}),
    "a second name for the file": (hard_link, "unsafe_file", {}),
    "code in the configuration": (config(auto_map={"AutoModel": "x.Y"}), "auto_map", {}),
    "no configuration": (lambda folder: (folder / CONFIG_NAME).unlink(), "config_missing", {}),
}
UNFIT: dict[str, tuple[Spoil, str, dict[str, Any]]] = {
    "a header of 2^63 bytes": (header_of_2_to_63_bytes, "safetensors_invalid", {}),
    "overlapping tensors": (overlapping_offsets, "safetensors_invalid", {}),
    "tensors behind the end": (offsets_behind_the_file, "safetensors_invalid", {}),
    "cut off": (truncated, "safetensors_invalid", {}),
    "left-over bytes": (left_overs, "safetensors_invalid", {}),
    "an empty file": (emptied, "safetensors_invalid", {}),
    "shapes of another model": (tensors(lambda values: values[:, :-1]), "shape_mismatch", {}),
    "rank above the server's": (untouched, "rank_too_high", {"rank": 128}),
    "rank 0": (config(r=0), "rank_invalid", {}),
    "another rank than the tensors": (config(r=8), "rank_mismatch", {}),
    "not a number": (tensors(with_nan), "non_finite", {}),
    "all zero": (tensors(lambda values: values * 0), "zero_effect", {}),
    "trained on another base": (other_base, "base_mismatch", {}),
    "another file than the manifest's": (changed_after_manifest, "hash_mismatch", {}),
    "modules_to_save": (config(modules_to_save=["lm_head"]), "modules_to_save", {}),
    "bias": (config(bias="all"), "bias", {}),
    "DoRA": (config(use_dora=True), "dora", {}),
    "another method than LoRA": (config(peft_type="IA3"), "peft_type_unsupported", {}),
}


class WatchedEngine(ScriptedEngine):
    """Notes which adapters it was asked to load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[AdapterHandle] = []

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        self.loads.append(adapter)
        await super().load_adapter(adapter)


@pytest.mark.parametrize("cases", [DOCTORED, UNFIT], ids=["B5-12", "B5-13"])
async def test_b5_12_13_a_bad_adapter_is_refused_by_its_problem_and_the_good_one_serves_on(
    running_server, cases
):
    engine = WatchedEngine()
    server = await running_server(engine=engine)
    good = server.make_adapter("good")
    loaded = await server.client.post("/admin/adapters", json={"name": "risk", "source": good})
    assert loaded.status_code == 201
    version = loaded.json()["adapter"]["live"]
    engine.loads.clear()
    engine.requests.clear()
    root = server.server.settings.adapter_folder
    for number, (spoil, _, options) in enumerate(cases.values(), 1):
        spoil(root / server.make_adapter(f"bad-{number}", seed=number, **options))
    before = resident_mib()
    async with undisturbed(server):
        for number, (case, (_, code, _)) in enumerate(cases.items(), 1):
            for name in ("risk", "other"):  # over a live adapter, and as a new one
                answer = await server.client.post(
                    "/admin/adapters", json={"name": name, "source": f"bad-{number}"}
                )
                error = refusal(answer, case)
                assert (answer.status_code, error["code"]) == (422, "adapter_check_failed"), (
                    f"{case}: {error}"
                )
                assert code in {problem["code"] for problem in error["problems"]}, f"{case}: {error}"
                assert str(root.parent) not in answer.text, case
                assert answer.elapsed.total_seconds() < REPLY_SECONDS, case
            assert not canary_of(root / f"bad-{number}").exists(), case
        assert engine.loads == []
        assert strangers(server) == []
        served = await server.client.post(
            "/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 2}
        )
        assert served.json()["text"] == f"{version} {version} "
    assert resident_mib() - before < 50
    assert set(server.gateway.adapters.board.aliases()) == {"risk"}
    assert [str(m.version) for m in server.gateway.adapters.board.versions()] == [version]


async def test_b5_12_a_folder_that_is_a_link_out_of_the_root_is_refused(running_server, tmp_path):
    engine = WatchedEngine()
    server = await running_server(engine=engine)
    source = server.make_adapter("good")
    root = server.server.settings.adapter_folder
    (root / source).rename(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    answer = await server.client.post("/admin/adapters", json={"name": "risk", "source": "link"})
    error = refusal(answer)
    assert (answer.status_code, error["code"]) == (422, "adapter_source_refused")
    assert str(tmp_path) not in answer.text
    assert engine.loads == []


def test_b5_12_the_canary_works(tmp_path):
    """A pickle that nothing refuses would leave its mark."""
    folder = tmp_path / "adapters" / "bad"
    folder.mkdir(parents=True)
    pickle.loads(pickled(folder))
    assert canary_of(folder).exists()


async def test_b5_13_an_adapter_that_changes_nothing_in_the_engine_is_refused_and_taken_out(running_server):
    """What the files do not show, the probe does: the engine answers as the base would."""
    engine = WatchedEngine()
    server = await running_server(engine=engine)
    engine.script.no_effect = True
    source = server.make_adapter("good")
    answer = await server.client.post("/admin/adapters", json={"name": "risk", "source": source})
    assert (answer.status_code, refusal(answer)["code"]) == (422, "probe_failed")
    assert len(engine.loads) == 1
    assert engine.adapters == {}
    refused = await server.client.post("/generate", json={"prompt": "a", "adapter": "risk"})
    assert refused.status_code == 404
