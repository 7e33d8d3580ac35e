"""A whole run: what is left behind when it ends early, and that going on changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bases.errors import BaseConversionError
from bases.passport import read_passport
from bases.resolve import resolve_base
from quantize.calibration.errors import CalibrationError
from quantize.errors import CompressorError, PreflightError, QuantizeError
from quantize.outcome import QuantizeOutcome
from quantize.recovery.settings import RecoverySettings
from quantize.resume import KEPT_FOLDERS, KeptLayers
from quantize.run import quantize_base
from quantize.settings import load_quantize_settings

PROJECT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"samples": 16, "row_tokens": 64, "held_out_rows": 2}


def run(folder: Path, home: Path, **given: Any) -> QuantizeOutcome:
    return quantize_base(
        resolve_base(str(folder), home=home), settings=load_quantize_settings(**SMALL | given), home=home
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def kept_layers(home: Path) -> list[str]:
    """Folders of layers that wait for a run to go on."""
    return [path.name for path in (home / "quantize").glob(KEPT_FOLDERS) if path.is_dir()]


def test_the_outcome_is_what_lies_on_disk(tiny_original: Path, quantise_home: Path, tmp_path: Path) -> None:
    outcome = run(tiny_original, quantise_home, out=tmp_path / "small", group_size=64)
    files = {path.name for path in outcome.folder.iterdir()}
    assert files == {
        "model.safetensors",
        "config.json",
        "recipe.yaml",
        "hotswap_base.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert outcome.bytes_after == len(weights(outcome.folder))
    assert outcome.bytes_after < 0.3 * outcome.bytes_before
    assert outcome.calibration is not None
    assert outcome.calibration.tokens == 16 * 64
    lineage = json.loads((outcome.folder / "hotswap_base.json").read_text())["steps"]
    original = read_passport(resolve_base(str(tiny_original), home=quantise_home), home=quantise_home)
    assert lineage[0]["parent"]["fingerprint"] == original.fingerprint
    assert lineage[0]["base_rounding"] == outcome.quality.base_rounding
    parts = read_passport(resolve_base(str(outcome.folder), home=quantise_home), home=quantise_home).parts
    assert (parts.config, parts.tokenizer) == (original.parts.config, original.parts.tokenizer)
    assert parts.weights != original.parts.weights


def test_the_same_settings_and_the_saved_recipe_make_the_same_bytes(
    tiny_original: Path, tiny_quantised: Callable[[str], Path], quantise_home: Path, tmp_path: Path
) -> None:
    first = tiny_quantised("gptq-w4a16")
    again = run(tiny_original, quantise_home, out=tmp_path / "again", group_size=64).folder
    by_recipe = run(
        tiny_original, quantise_home, out=tmp_path / "by-recipe", recipe=first / "recipe.yaml"
    ).folder
    assert weights(again) == weights(first)
    assert weights(by_recipe) == weights(first)
    assert (by_recipe / "recipe.yaml").read_bytes() == (first / "recipe.yaml").read_bytes()


def test_the_gptq_layout_is_written_beside_it_where_it_can_be(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    outcome = run(tiny_original, quantise_home, out=tmp_path / "small", scheme="rtn-w4a16", layout="gptq")
    assert outcome.layout_folder == tmp_path / "small-gptq-layout"
    config = json.loads((outcome.layout_folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "gptq"
    with pytest.raises(PreflightError, match="small-gptq-layout exists"):
        run(tiny_original, quantise_home, out=tmp_path / "small", scheme="rtn-w4a16", layout="gptq")
    with pytest.raises(PreflightError, match="no form in the GPTQ layout"):
        run(tiny_original, quantise_home, out=tmp_path / "other", scheme="int8-dynamic", layout="gptq")


def test_recovery_follows_and_lies_where_adapters_do(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    settings = load_quantize_settings(
        **SMALL | {"held_out_rows": 8}, scheme="rtn-w4a16", out=tmp_path / "small", recover=True
    )
    base = resolve_base(str(tiny_original), home=quantise_home)
    recovery = RecoverySettings(recover_method="closed-form", recover_name="back")
    outcome = quantize_base(base, settings=settings, recovery=recovery, home=quantise_home)
    assert outcome.recovery is not None
    assert outcome.recovery.before.mean_kl_nats == outcome.quality.mean_kl_nats
    if outcome.recovery.folder is not None:
        assert outcome.recovery.folder.parent == quantise_home / "adapters" / "back"


def test_force_replaces_a_base_and_without_it_nothing_is_touched(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    before = weights(run(tiny_original, quantise_home, out=out, scheme="rtn-w4a16").folder)
    with pytest.raises(PreflightError, match="exists"):
        run(tiny_original, quantise_home, out=out, scheme="int8-dynamic")
    assert weights(out) == before
    run(tiny_original, quantise_home, out=out, scheme="int8-dynamic", force=True)
    assert weights(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("scheme", ["gptq-w4a16", "awq-w4a16", "int8-w8a8-smooth"])
def test_a_run_that_went_on_makes_the_bytes_of_one_that_was_not_interrupted(
    scheme: str,
    tiny_original: Path,
    tiny_quantised: Callable[[str], Path],
    quantise_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = KeptLayers.keep
    stop_at = {"gptq-w4a16": (0, 1), "awq-w4a16": (0, 1), "int8-w8a8-smooth": (1, 1)}[scheme]
    given = {"out": tmp_path / "small", "scheme": scheme}
    if scheme != "int8-w8a8-smooth":
        given["group_size"] = 64

    def keep_and_stop(self: KeptLayers, number: int, layer: int, modules: Any) -> None:
        keep(self, number, layer, modules)
        if (number, layer) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(KeptLayers, "keep", keep_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_original, quantise_home, **given)
    assert not list(tmp_path.iterdir()), "nothing half-made"
    monkeypatch.setattr(KeptLayers, "keep", keep)
    outcome = run(tiny_original, quantise_home, **given)
    assert outcome.layers_taken_over == (2 if stop_at[0] == 0 else 5)
    assert weights(outcome.folder) == weights(tiny_quantised(scheme))
    assert kept_layers(quantise_home) == []


def test_a_killed_run_leaves_nothing_half_made_and_the_next_one_goes_on(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    home, out = quantise_home, tmp_path / "out" / "small"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from quantize.resume import KeptLayers\n"
        "keep = KeptLayers.keep\n"
        "def slow(self, *rest):\n"
        "    keep(self, *rest); print('kept', flush=True); time.sleep(600)\n"
        "KeptLayers.keep = slow\n"
        "from tests.quantize.test_run import run\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), out=sys.argv[3])\n"
    )
    command = [sys.executable, "-c", code, str(tiny_original), str(home), str(out)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert said == b"kept\n"
    assert not out.exists()
    assert any(path.name.startswith(".small.partial-") for path in out.parent.iterdir())
    outcome = run(tiny_original, home, out=out)
    assert outcome.layers_taken_over == 1
    assert [path.name for path in out.parent.iterdir()] == ["small"]


def test_two_runs_do_not_make_the_same_folder(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    def second(text: str) -> None:
        if text.startswith("Loading"):
            with pytest.raises(BaseConversionError, match="Another process is making"):
                run(tiny_original, quantise_home, out=tmp_path / "small")
            raise StoppedError

    with pytest.raises(StoppedError):
        quantize_base(
            resolve_base(str(tiny_original), home=quantise_home),
            settings=load_quantize_settings(**SMALL, out=tmp_path / "small"),
            home=quantise_home,
            progress=second,
        )
    assert not list(tmp_path.iterdir())


def test_three_lines_to_calibrate_with_are_too_few(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    data = tmp_path / "three.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {n}", "completion": "yes"}) + "\n" for n in range(3)))
    with pytest.raises((QuantizeError, CalibrationError), match="tokens"):
        run(tiny_original, quantise_home, data=[str(data)], out=tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["three.jsonl"]


def test_fewer_tokens_than_a_layer_has_inputs_are_refused_with_the_floor(
    tiny_original: Path, quantise_home: Path, tmp_path: Path
) -> None:
    with pytest.raises(QuantizeError, match=r"gives 128 tokens in rows of 64; at least 256 are needed"):
        run(tiny_original, quantise_home, samples=2, out=tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_what_llm_compressor_runs_into_is_one_message_and_leaves_nothing(
    tiny_original: Path, quantise_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmcompressor.modifiers.gptq import GPTQModifier

    compress = GPTQModifier.compress_modules
    calls: list[None] = []

    def fail(self: Any) -> None:
        calls.append(None)
        if len(calls) > 1:
            raise Exception("no finite loss")
        compress(self)

    monkeypatch.setattr(GPTQModifier, "compress_modules", fail)
    with pytest.raises(
        CompressorError, match=r"llm-compressor failed on tiny with gptq-w4a16.*no finite loss"
    ):
        run(tiny_original, quantise_home, out=tmp_path / "small")
    assert not list(tmp_path.iterdir())
    assert kept_layers(quantise_home) == []


def test_nothing_is_printed(
    tiny_original: Path, quantise_home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    run(tiny_original, quantise_home, out=tmp_path / "small", scheme="awq-w4a16")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", ""), f"after {time.monotonic() - started:.0f} s"
