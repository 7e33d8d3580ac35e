"""Doctored adapters on the real engine: each is refused by its cause, and the old version serves on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.artefact import MANIFEST_NAME, PROBE_NAME, WEIGHTS_NAME
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from serve.client import GatewayClient, GatewayRefusedError
from tests.serve.live import doctored
from tests.serve.live.live_server import LiveServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

_ARGUMENTS = (
    "--dtype=float32",
    "--kv-cache-gib=0.1",
    "--max-num-seqs=8",
    "--max-loras=2",
    "--max-lora-rank=8",
)


@dataclass(frozen=True)
class Bench:
    """A server with a live adapter, and adapters that may be spoiled."""

    server: LiveServer
    http: httpx.Client
    live: dict[str, Any]  # the answer of its load
    trained: Path
    another: Path  # trained on the same base
    elsewhere: Path  # trained on another base of the same shape, and claiming this one

    def says(self) -> str:
        body = {"prompt": "When?", "adapter": "risk", "max_tokens": 8, "ignore_eos": True}
        answer = self.http.post("/generate", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["adapter"] == self.live["adapter"]["live"]
        return str(answer.json()["text"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("doctored-home")
    base, other_base = make_tiny_base(home / "base"), make_tiny_base(home / "other", seed=1)
    fingerprint = read_passport(resolve_base(str(base), home=home), home=home).fingerprint
    made = [
        doctored.train(home / name, which, home=home, seed=seed)
        for seed, (name, which) in enumerate(
            [("old", base), ("trained", base), ("another", base), ("elsewhere", other_base)]
        )
    ]
    doctored.claim_base(made[3], fingerprint, base.name)
    with (
        LiveServer(home, f"--base={base}", *_ARGUMENTS) as server,
        server.client() as http,
        GatewayClient(server.url) as client,
    ):
        live = client.push_adapter("risk", made[0])
        yield Bench(server, http, live, *made[1:])


def test_the_trained_adapter_is_live_with_the_numbers_of_its_probe(bench: Bench) -> None:
    probe = bench.live["probe"]
    assert (probe["kind"], probe["num_cases"]) == ("replay", len(doctored.PROMPTS))
    assert probe["num_tokens"] > 40
    assert probe["max_difference_nats"] < 1e-3
    assert probe["base_difference_nats"] < 1e-3
    assert probe["slope"] == pytest.approx(1.0, abs=1e-3)
    print("probe:", probe)


CHECKED: dict[str, tuple[tuple[doctored.Spoil, ...], str]] = {
    "B is zero": (
        (
            doctored.each(lambda name, value: value * (0 if "lora_B" in name else 1)),
            doctored.without_manifest,
        ),
        "zero_effect",
    ),
    "modules renamed": ((doctored.tensors(doctored.renamed), doctored.without_manifest), "target_unknown"),
    "NaN": ((doctored.each(doctored.with_nan), doctored.without_manifest), "non_finite"),
    "another base": ((lambda folder: doctored.claim_base(folder, "1" * 64, "another"),), "base_mismatch"),
    "alpha doubled, manifest kept": ((doctored.config(lora_alpha=16),), "hash_mismatch"),
    "weights cut off": ((doctored.cut_off(WEIGHTS_NAME),), "safetensors_invalid"),
    "probe cut off": ((doctored.cut_off(PROBE_NAME),), "probe_invalid"),
    "manifest cut off": ((doctored.cut_off(MANIFEST_NAME),), "manifest_invalid"),
}
PROBED: dict[str, tuple[tuple[doctored.Spoil, ...], str, str]] = {
    "alpha doubled": (
        (doctored.config(lora_alpha=16),),
        "wrong_scale",
        "acts at 2.00 of its trained strength",
    ),
    "alpha halved": ((doctored.config(lora_alpha=4),), "wrong_scale", "acts at 0.50 of its trained strength"),
    "scaled as rsLoRA": ((doctored.config(use_rslora=True),), "wrong_scale", "acts at 2.00 of its"),
    "layers exchanged": ((doctored.tensors(doctored.layers_exchanged),), "unlike_training", "nats at case"),
    "one module shuffled": ((doctored.each(doctored.rows_shuffled),), "unlike_training", "nats at case"),
    "B next to nothing": (
        (doctored.each(lambda name, value: value * (1e-9 if "lora_B" in name else 1)),),
        "no_effect",
        "changes nothing here",
    ),
    "next to nothing, without a probe": (
        (
            doctored.each(lambda name, value: value * (1e-9 if "lora_B" in name else 1)),
            doctored.without_probe,
        ),
        "no_effect",
        "changes nothing",
    ),
}


def refused(bench: Bench, folder: Path) -> dict[str, Any]:
    """The error of loading the folder over the live adapter, which goes on answering as before."""
    before = bench.says()
    source = bench.server.adapter_root / folder.name
    source.parent.mkdir(exist_ok=True)
    folder.rename(source)
    answer = bench.http.post("/admin/adapters", json={"name": "risk", "source": folder.name})
    assert answer.status_code == 422, answer.text
    assert bench.says() == before
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("case", CHECKED)
def test_what_the_files_show_is_refused_by_the_check(bench: Bench, tmp_path: Path, case: str) -> None:
    spoils, code = CHECKED[case]
    error = refused(bench, doctored.copy(bench.trained, tmp_path / case.replace(" ", "-"), *spoils))
    assert error["code"] == "adapter_check_failed"
    assert code in {problem["code"] for problem in error["problems"]}, error


@pytest.mark.parametrize("case", PROBED)
def test_what_only_the_engine_shows_is_refused_by_the_probe(bench: Bench, tmp_path: Path, case: str) -> None:
    spoils, cause, said = PROBED[case]
    folder = doctored.copy(
        bench.trained, tmp_path / case.replace(" ", "-"), *spoils, doctored.without_manifest
    )
    error = refused(bench, folder)
    print(case, json.dumps(error["probe"]), error["message"])
    assert (error["code"], error["problems"][0]["code"]) == ("probe_failed", cause), error
    assert said in error["message"]


def test_another_adapter_s_probe_is_refused(bench: Bench, tmp_path: Path) -> None:
    folder = doctored.copy(
        bench.trained,
        tmp_path / "foreign-probe",
        doctored.probe_of(bench.another),
        doctored.without_manifest,
    )
    before = bench.says()
    with (
        GatewayClient(bench.server.url) as client,
        pytest.raises(GatewayRefusedError, match="unlike_training"),
    ):
        client.push_adapter("risk", folder)
    assert bench.says() == before


def test_another_base_is_told_by_its_numbers_when_all_its_papers_are_forged(
    bench: Bench, tmp_path: Path
) -> None:
    error = refused(bench, doctored.copy(bench.elsewhere, tmp_path / "elsewhere"))
    assert error["problems"][0]["code"] == "base_differs"
    assert "not the base of the training" in error["message"]


def test_after_all_that_the_right_one_replaces_the_old_one_and_nothing_is_left(bench: Bench) -> None:
    with GatewayClient(bench.server.url) as client:
        answer = client.push_adapter("risk", bench.trained)
    assert answer["replaced"] == bench.live["adapter"]["live"]
    assert answer["probe"]["max_difference_nats"] < 1e-3
    store = bench.server.home / "store"
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []
    listed = bench.http.get("/admin/adapters").json()
    assert listed["resident"] <= 2  # the new one, and the old one while it drains
