"""A gateway that a measurement starts for itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.gateway import find_base, gateway_spec
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.own_gateway import own_gateway, parse_ranks
from serve.client import GatewayClient


def test_it_serves_adapters_of_the_ranks_dealt_in_turn_and_is_gone_with_its_folder_after() -> None:
    said: list[str] = []
    with own_gateway("scripted", adapters=3, ranks=(8, 16), say=said.append) as gateway:
        with GatewayClient(gateway.url) as client:
            listed = client.list_adapters()["adapters"]
            extra = gateway.maker.make("one-more", seed=99)
            assert client.load_adapter("one-more", extra)["created"]
        ranks = {adapter["name"]: adapter["versions"][0]["rank"] for adapter in listed}
        assert ranks == dict(zip(gateway.adapters, gateway.ranks, strict=True))
        assert gateway.ranks == (8, 16, 8)
        processes = gateway.process_ids()
        assert processes
        folder = gateway.folder
        assert (folder / "home").is_dir()
    assert not folder.exists()
    assert not any(psutil.pid_exists(process) for process in processes)
    with pytest.raises(httpx.HTTPError):
        httpx.get(gateway.url + "/readyz")
    assert any("3 adapters of rank 8, 16" in line for line in said)


@pytest.mark.parametrize("text", ["", "8,x", "0", "8,1024"])
def test_ranks_that_no_gateway_takes_are_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--ranks"):
        parse_ranks(text)


def test_ranks_are_numbers_with_commas() -> None:
    assert parse_ranks("8, 16,64") == (8, 16, 64)


def test_no_setting_of_the_caller_reaches_it_but_where_the_compiled_kernels_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "kernels-here"))
    monkeypatch.setenv("HOTSWAP_MAX_NUM_SEQS", "3")
    spec = gateway_spec(tmp_path / "own", find_base("scripted", tmp_path))
    assert spec.environment["HOTSWAP_HOME"] == str(tmp_path / "kernels-here")
    assert "HOTSWAP_MAX_NUM_SEQS" not in spec.environment
    assert spec.command[spec.command.index("--home") + 1] == str(tmp_path / "own")
