"""A run that stopped behind its finished base goes on there, and a full disk costs no work that was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterNameError, AdapterNotFoundError
from bases.errors import BaseConversionError
from bases.resolve import resolve_base
from quantize import run as stages
from quantize.errors import PreflightError
from quantize.layout.errors import LayoutError
from quantize.outcome import QuantizeOutcome
from quantize.placed import PlacedBase
from quantize.recovery.errors import RecoveryError
from quantize.recovery.settings import RecoverySettings
from quantize.resume import KeptLayers
from quantize.run import quantize_base
from quantize.settings import load_quantize_settings
from quantize.stored import save_quantised
from tests.full_disk import files_no_larger_than
from tests.quantize.test_run import kept_layers, weights

RECOVERY = RecoverySettings(recover_method="closed-form", recover_name="back")


@pytest.fixture
def run(tiny_original: Path, quantise_home: Path, tmp_path: Path) -> Callable[..., QuantizeOutcome]:
    """Quantises the tiny base into the folder `small`, in a scheme that looks at no text unless told otherwise."""

    def quantise(said: list[str] | None = None, **given: Any) -> QuantizeOutcome:
        values = {"scheme": "rtn-w4a16", "samples": 16, "row_tokens": 64, "held_out_rows": 8}
        recovery = given.pop("recovery", RECOVERY)
        return quantize_base(
            resolve_base(str(tiny_original), home=quantise_home),
            settings=load_quantize_settings(out=tmp_path / "small", **values | given),
            recovery=recovery,
            home=quantise_home,
            progress=(said if said is not None else []).append,
        )

    return quantise


def identity(path: Path) -> tuple[int, int]:
    """Another one once the file was written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def stopped(error: type[BaseException]) -> Callable[..., Any]:
    def stop(*_: object, **__: object) -> None:
        raise error("stopped here")

    return stop


@pytest.mark.parametrize("error", [KeyboardInterrupt, RecoveryError])
def test_a_stopped_recovery_goes_on_behind_the_base_that_is_there(
    run: Callable[..., QuantizeOutcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    said: list[str] = []
    with pytest.raises(error), monkeypatch.context() as patch:
        patch.setattr(stages, "make_recovery", stopped(error))
        run(said, recover=True)
    small = tmp_path / "small"
    assert said[-1] == f"Stopped. The quantised base is whole in {small}; the same command goes on behind it"
    before = identity(small / "model.safetensors")
    said.clear()
    outcome = run(said, recover=True)
    assert outcome.recovery is not None
    assert outcome.recovery.before.mean_kl_nats == outcome.quality.mean_kl_nats
    assert identity(small / "model.safetensors") == before, "the base was not made again"
    assert any("going on behind it" in line for line in said)
    with pytest.raises(PreflightError, match="small exists"):
        run(recover=True)


def test_so_does_a_stopped_layout_and_what_lay_there_stays_until_then(
    run: Callable[..., QuantizeOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(layout="gptq")
    assert first.layout_folder is not None
    old = weights(first.layout_folder)
    with pytest.raises(LayoutError), monkeypatch.context() as patch:
        patch.setattr("quantize.layout.checkpoint._write_configs", stopped(LayoutError))
        run(layout="gptq", force=True)
    assert weights(first.layout_folder) == old
    before = identity(tmp_path / "small" / "model.safetensors")
    assert run(layout="gptq").layout_folder == first.layout_folder
    assert identity(tmp_path / "small" / "model.safetensors") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "small-gptq-layout"]


def test_another_command_does_not_take_the_base_for_its_own(
    run: Callable[..., QuantizeOutcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "make_recovery", stopped(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(recover=True)
    before = weights(tmp_path / "small")
    for other in ({"seed": 1, "recover": True}, {"scheme": "int8-dynamic", "recover": True}, {}):
        with pytest.raises(PreflightError, match="small exists"):
            run(**other)
    with pytest.raises(PreflightError, match="small exists"):
        run(recover=True, resume=False)
    assert weights(tmp_path / "small") == before
    run(scheme="int8-dynamic", force=True)
    with pytest.raises(PreflightError, match="small exists"):
        run(recover=True)


def test_a_base_that_was_put_in_its_place_is_not_taken_for_it(
    run: Callable[..., QuantizeOutcome], quantise_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "make_recovery", stopped(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(recover=True)
    placed = PlacedBase(quantise_home, tmp_path / "small")
    assert placed.key() is not None
    lineage = tmp_path / "small" / "hotswap_base.json"
    lineage.write_text(lineage.read_text() + "\n")
    assert placed.key() is None
    with pytest.raises(PreflightError, match="small exists"):
        run(recover=True)


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"recover_name": "Not A Name"}, AdapterNameError),
        ({"recover_with": "no-such-adapter"}, AdapterNotFoundError),
    ],
)
def test_names_of_the_recovery_are_looked_at_before_the_long_part(
    run: Callable[..., QuantizeOutcome], tmp_path: Path, wishes: dict[str, Any], error: type[Exception]
) -> None:
    said: list[str] = []
    with pytest.raises(error):
        run(said, recover=True, recovery=RecoverySettings(**wishes))
    assert said == []
    assert not list(tmp_path.iterdir())


def test_a_full_disk_at_the_end_keeps_the_layers_that_were_made(
    run: Callable[..., QuantizeOutcome],
    tiny_quantised: Callable[[str], Path],
    quantise_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"scheme": "gptq-w4a16", "group_size": 64, "held_out_rows": 2}
    whole = tiny_quantised("gptq-w4a16")
    said: list[str] = []
    save = save_quantised

    def save_on_a_full_disk(*arguments: Any, **given: Any) -> None:
        with files_no_larger_than(len(weights(whole)) - 1):
            save(*arguments, **given)

    with (
        pytest.raises(
            BaseConversionError, match=r"small cannot be written: File too large\. Free space there"
        ),
        monkeypatch.context() as patch,
    ):
        patch.setattr(stages, "save_quantised", save_on_a_full_disk)
        run(said, **given)
    assert not list(tmp_path.iterdir())
    assert said[-1] == "Stopped. Finished layers are kept: the same command goes on from there"
    outcome = run(**given)
    assert outcome.layers_taken_over == 3
    assert weights(outcome.folder) == weights(whole)
    assert kept_layers(quantise_home) == []


def test_no_room_for_finished_layers_is_no_reason_to_stop(
    run: Callable[..., QuantizeOutcome],
    tiny_quantised: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = KeptLayers.keep

    def keep_on_a_full_disk(*arguments: Any) -> None:
        with files_no_larger_than(1000):
            keep(*arguments)

    monkeypatch.setattr(KeptLayers, "keep", keep_on_a_full_disk)
    said: list[str] = []
    outcome = run(said, scheme="gptq-w4a16", group_size=64, held_out_rows=2)
    assert weights(outcome.folder) == weights(tiny_quantised("gptq-w4a16"))
    warnings = [line for line in said if line.startswith("warning: finished layers cannot be kept")]
    assert len(warnings) == 1
