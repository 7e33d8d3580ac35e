"""What is started, with which settings, and what is said of peers that cannot be had."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bases.tiny import make_tiny_base
from benchmarks.load.errors import LoadOptionError, PeerUnavailableError
from benchmarks.load.peers.lineup import Lineup, LineupOptions, make_lineup
from benchmarks.load.peers.peer import GATEWAY, Peer, parse_peers
from serve.engine.cpu.plugin import PATCHES_VARIABLE
from serve.engine.vllm.machine import Machine

CPU = Machine("cpu", (0, 1), native_bf16=False, avx512=False, available_bytes=2**34, processor="any")


@pytest.fixture(autouse=True)
def _a_machine_without_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("serve.engine.vllm.machine.read_machine", lambda: CPU)
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "hotswap"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_base(tmp_path_factory.mktemp("base") / "tiny"))


def lineup_of(folder: Path, base: str, *peers: str, **changes: Any) -> Lineup:
    options = LineupOptions(base, kv_cache_gib=0.25, adapters=0, slots=4, together=True)
    return make_lineup(parse_peers(peers), ("generate", "completions"), replace(options, **changes), folder)


def named(lineup: Lineup, name: str) -> Peer:
    return next(peer for peer in lineup.peers if peer.name == name)


def program_in(folder: Path) -> Path:
    program = folder / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_stock_servers_get_the_settings_of_the_gateway_with_and_without_its_mends(
    tmp_path: Path, tiny: str
) -> None:
    lineup = lineup_of(tmp_path, tiny, "vllm", "vllm-mended", "vllm-defaults", adapters=12)
    stock, mended, plain = (named(lineup, name) for name in ("vllm", "vllm-mended", "vllm-defaults"))
    assert [peer.name for peer in lineup.peers] == [GATEWAY, "vllm", "vllm-mended", "vllm-defaults"]
    assert list(stock.spec.command) == list(mended.spec.command)
    assert "--kv-cache-memory-bytes=268435456" in stock.spec.command
    assert "--max-loras=12" in stock.spec.command
    gateway = list(lineup.peers[0].spec.command)
    assert gateway[gateway.index("--max-loras") + 1] == "12"
    assert gateway[gateway.index("--kv-cache-gib") + 1] == "0.25"
    assert PATCHES_VARIABLE not in stock.spec.environment
    assert mended.spec.environment[PATCHES_VARIABLE] == "all"
    given = stock.spec.command[stock.spec.command.index("--lora-modules") + 1 :][:12]
    assert [text.split("=")[0] for text in given] == list(lineup.adapters)
    assert all((Path(text.split("=")[1]) / "adapter_config.json").is_file() for text in given)
    assert not plain.adapters
    assert not any("kv-cache" in part or "lora" in part for part in plain.spec.command)


def test_llama_cpp_is_started_with_as_much_cache_and_as_many_slots(tmp_path: Path, tiny: str) -> None:
    weights = tmp_path / "any.gguf"
    weights.write_bytes(b"GGUF")
    lineup = lineup_of(tmp_path, tiny, "llamacpp", llama_server=program_in(tmp_path), gguf=weights)
    peer = named(lineup, "llamacpp")
    command = list(peer.spec.command)
    assert command[0] == str(tmp_path / "llama-server")
    assert command[command.index("--model") + 1] == str(weights)
    assert command[command.index("--parallel") + 1] == "4"
    assert int(command[command.index("--ctx-size") + 1]) > 0
    assert not peer.adapters


def test_our_gateway_on_another_base_takes_part_with_the_same_flags(tmp_path: Path, tiny: str) -> None:
    lineup = lineup_of(tmp_path, tiny, f"gateway@{tiny}:float32")
    first, other = lineup.peers
    assert other.name == f"gateway@{tiny}:float32"
    assert other.dialects == ("completions",)
    assert "--dtype=float32" in other.spec.command
    assert "--dtype=float32" not in first.spec.command
    wide = lineup_of(tmp_path, f"{tiny}:bfloat16", "vllm", f"gateway@{tiny}")
    assert [any(part == "--dtype=bfloat16" for part in peer.spec.command) for peer in wide.peers] == [
        True,
        True,
        False,
    ]
    place = list(other.spec.command).index("--kv-cache-gib")
    assert other.spec.command[place + 1] == "0.25"
    assert other.spec.command[: place - 1].count("--home") == 1


def test_a_peer_that_is_not_here_is_one_clear_line(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    weights = tmp_path / "any.gguf"
    weights.write_bytes(b"GGUF")
    with (
        monkeypatch.context() as patch,
        pytest.raises(
            PeerUnavailableError, match=r"not on PATH, and .* cannot be had: (?s:.*) --llama-server"
        ),
    ):
        patch.setattr(sys, "executable", str(tmp_path / "no-python"))
        lineup_of(tmp_path, tiny, "llamacpp", gguf=weights, tools=tmp_path / "tools")
    with pytest.raises(PeerUnavailableError, match="is no program"):
        lineup_of(tmp_path, tiny, "llamacpp", llama_server=tmp_path / "nothing", gguf=weights)
    with pytest.raises(PeerUnavailableError, match="is no GGUF file; convert it"):
        lineup_of(tmp_path, tiny, "llamacpp", llama_server=program_in(tmp_path))
    with pytest.raises(PeerUnavailableError, match="there is no such file"):
        lineup_of(tmp_path, tiny, "llamacpp", llama_server=program_in(tmp_path), gguf=tmp_path / "none.gguf")
    with pytest.raises(
        PeerUnavailableError, match="scripted has no weights, so that tutorial cannot serve it"
    ):
        lineup_of(tmp_path, "scripted", "tutorial")


def test_adapters_cannot_be_put_into_a_gateway_that_runs_already(tmp_path: Path) -> None:
    with pytest.raises(LoadOptionError, match="--random-adapters"):
        lineup_of(
            tmp_path, "scripted", "other=http://127.0.0.1:1", gateway_url="http://127.0.0.1:2", adapters=2
        )


def test_servers_that_run_already_are_taken_as_they_are(tmp_path: Path) -> None:
    lineup = lineup_of(tmp_path, "scripted", "other=http://127.0.0.1:1/", gateway_url="http://127.0.0.1:2")
    assert [(peer.name, peer.spec.url) for peer in lineup.peers] == [
        (GATEWAY, "http://127.0.0.1:2"),
        ("other", "http://127.0.0.1:1"),
    ]
    assert not any(peer.spec.command for peer in lineup.peers)
    assert [peer.dialects for peer in lineup.peers] == [("generate", "completions"), ("completions",)]
