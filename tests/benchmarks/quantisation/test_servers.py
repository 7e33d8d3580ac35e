"""Servers of a report: how they are started, what they cost, how they fail."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import typer

from benchmarks.errors import ServerStartError
from benchmarks.quantisation import fleet, speed
from benchmarks.quantisation.bench import rank_for
from benchmarks.quantisation.figures import MadeAdapter
from benchmarks.quantisation.fleet import ask_capital, up
from benchmarks.quantisation.memory import plugin_folder, read_memory
from benchmarks.quantisation.memory_plugin import MEMORY_VARIABLE, anonymous_bytes
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.served import Served, groups_that_fit, memory_file, servers_of, spec_of
from benchmarks.quantisation.speed import RECORDS_NAME, measure_together
from benchmarks.server import ServerSpec, running
from serve.settings import load_settings
from tests.benchmarks.quantisation.example_report import INT8, W4, form

ORIGINAL, FORMS = form("merged", None, 512), [form("w8", INT8, 160), form("w4", W4, 128)]
DYING = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Dies(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def do_POST(self):
        os._exit(1)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Dies).serve_forever()
"""


@pytest.fixture
def plan(tmp_path) -> ReportPlan:
    return ReportPlan(
        base="default",
        adapter="risk",
        data=tmp_path / "notes.jsonl",
        calibration=(),
        label_pattern=r"Risk: (\d)",
        schemes=(INT8, W4),
        dtypes=("float32",),
        parts=("speed",),
        label="native",
        isa=None,
        home=tmp_path,
        out=tmp_path / "out",
        made={},
        concurrency=(2,),
        rounds=2,
        requests=3,
        max_tokens=4,
        settle_seconds=0.0,
        ready_seconds=120.0,
    )


def adapter(rank: int) -> MadeAdapter:
    return MadeAdapter(name="risk", folder="/adapters/risk", digest="ab" * 32, rank=rank)


def scripted(served: Served, folder: Path) -> ServerSpec:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOTSWAP_")}
    command = [sys.executable, "-m", "hotswap", "serve", "--engine", "scripted", "--port", "{port}"]
    home = ("--home", str(folder / served.file_name))
    return ServerSpec(served.name, served.title, "scripted", "/readyz", [*command, *home], environment)


def test_every_form_is_served_in_every_format_and_float32_comes_first():
    names = [each.name for each in servers_of(ORIGINAL, FORMS, ("float32", "bfloat16"))]
    assert names == [
        "float32",
        "bfloat16",
        f"{INT8}/float32",
        f"{INT8}/bfloat16",
        f"{W4}/float32",
        f"{W4}/bfloat16",
    ]


def test_a_server_has_a_home_of_its_own_and_the_simulated_processor(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("HOTSWAP_ADMIN_KEY", "a-key-of-the-user")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, other = servers_of(ORIGINAL, FORMS[:1], ("float32",))
    spec = spec_of(other, replace(plan, isa="avx2"), folder=tmp_path, adapter_rank=16)
    assert spec.environment["HOTSWAP_CPU_ISA"] == "avx2"
    assert "HOTSWAP_ADMIN_KEY" not in spec.environment
    assert "OMP_NUM_THREADS" not in spec.environment
    assert spec.command[spec.command.index("--base") + 1] == FORMS[0].folder
    homes = {
        each.command[each.command.index("--home") + 1]
        for each in (spec, spec_of(one, plan, folder=tmp_path, adapter_rank=16))
    }
    assert len(homes) == 2


def test_every_setting_of_a_server_is_one_that_the_gateway_takes(plan, tmp_path):
    import hotswap

    for rank in (rank_for(()), rank_for([adapter(4), adapter(17)])):
        spec = spec_of(servers_of(ORIGINAL, [], ("float32",))[0], plan, folder=tmp_path, adapter_rank=rank)
        options = [part.replace("{port}", "0") for part in spec.command[spec.command.index("serve") + 1 :]]
        command = typer.main.get_command(hotswap.app).commands["serve"]  # type: ignore[attr-defined]
        context = command.make_context("serve", [*options])
        given = {name: value for name, value in context.params.items() if name != "config"}
        assert load_settings(**given).max_lora_rank == rank
    assert rank_for([adapter(17)]) == 32


def test_servers_are_up_together_as_far_as_memory_goes():
    served = servers_of(ORIGINAL, FORMS, ("float32",))
    assert [len(group) for group in groups_that_fit(served, 0.25, 64_000_000_000)] == [3]
    assert [len(group) for group in groups_that_fit(served, 0.25, 5_800_000_000)] == [2, 1]
    assert [len(group) for group in groups_that_fit(served, 0.25, 1_000_000_000)] == [1, 1, 1]


def test_servers_take_turns_and_each_is_set_against_float32(plan, tmp_path):
    served = servers_of(ORIGINAL, FORMS[1:], ("float32",))
    said: list[str] = []
    with running([scripted(each, tmp_path) for each in served], logs=tmp_path, ready_seconds=120) as servers:
        figures = measure_together(served, servers, plan, folder=tmp_path, say=said.append)
        short = measure_together(
            served, servers, replace(plan, speed_seconds=0.0), folder=tmp_path, say=said.append
        )
    baseline, other = figures.cells
    assert [(cell.concurrency, cell.served) for cell in figures.cells] == [
        (2, "float32"),
        (2, f"{W4}/float32"),
    ]
    assert baseline.throughput_ratio is None
    assert other.throughput_ratio is not None
    assert other.throughput_ratio.count == figures.rounds == 2
    # Three requests of each of two workers in both rounds.
    assert [(cell.attempted, cell.answered) for cell in figures.cells] == [(12, 12), (12, 12)]
    assert any("min left" in line for line in said)
    # Without time there is one whole round, never part of one.
    assert (short.rounds, short.rounds_wanted) == (1, 2)
    assert {cell.blocks for cell in short.cells} == {1}
    lines = [json.loads(line) for line in (tmp_path / RECORDS_NAME).read_text().splitlines()]
    turns = list(dict.fromkeys((one["round"], one["concurrency"], one["contender"]) for one in lines))
    assert turns == [
        (0, 2, "float32"),
        (0, 2, f"{W4}/float32"),
        (1, 2, f"{W4}/float32"),
        (1, 2, "float32"),
    ]
    whole = [one for one in lines if one["outcome"] != "unfinished"]
    assert all(one["outcome"] == "ok" for one in whole)
    assert len(whole) >= sum(cell.attempted for cell in (*figures.cells, *short.cells))


def test_servers_that_memory_does_not_hold_together_never_meet(plan, tmp_path, monkeypatch):
    up: list[str] = []

    @contextlib.contextmanager
    def alone(specs, **options):
        assert up == []
        with running(specs, **options) as servers:
            up.extend(servers)
            yield servers
        up.clear()

    said: list[str] = []
    monkeypatch.setattr(speed, "spec_of", lambda served, *_, **__: scripted(served, tmp_path))
    monkeypatch.setattr(speed, "running", alone)
    served = servers_of(ORIGINAL, FORMS[1:], ("float32",))
    figures = speed.measure_apart(served, replace(plan, rounds=1), folder=tmp_path, say=said.append)
    assert [line for line in said if "starting" in line] == [
        f"speed: starting {each.title}" for each in served
    ]
    assert not figures.together
    assert [(cell.blocks, cell.answered) for cell in figures.cells] == [(1, 6), (1, 6)]


def test_a_server_that_does_not_come_up_shows_its_log(plan, tmp_path, monkeypatch):
    def broken(served: Served, *_: object, **__: object) -> ServerSpec:
        command = [sys.executable, "-c", "raise SystemExit('the weights are gone')"]
        return ServerSpec(served.name, f"the server of {served.title}", "m", "/readyz", command, os.environ)

    monkeypatch.setattr(fleet, "spec_of", broken)
    with (
        pytest.raises(ServerStartError, match=r"(?s)server of gptq-w4a16, float32 ended .*weights are gone"),
        up([Served(f"{W4}/float32", FORMS[1], "float32")], plan, folder=tmp_path, adapter_rank=8, say=print),
    ):
        pass


def test_a_server_that_dies_of_its_first_request_is_named(tmp_path):
    command = [sys.executable, "-c", DYING, "{port}"]
    spec = ServerSpec("w4", "the server of w4", "m", "/readyz", command, dict(os.environ))
    with (
        running([spec], logs=tmp_path, ready_seconds=60) as servers,
        pytest.raises(ServerStartError, match="server of w4 came up and ended with its first request"),
    ):
        ask_capital(servers["w4"], "merged")


def test_a_measurement_that_is_told_to_end_takes_its_servers_with_it(tmp_path):
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from benchmarks.server import ServerSpec, running\n"
        "from benchmarks.sigterm import end_on_sigterm\n"
        "end_on_sigterm()\n"
        "command = [sys.executable, '-c', sys.argv[1], '{port}']\n"
        "spec = ServerSpec('w4', 'w4', 'm', '/readyz', command, dict(os.environ))\n"
        "with running([spec], logs=Path(sys.argv[2]), ready_seconds=60) as servers:\n"
        "    print(servers['w4'].process_ids()[0], flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, DYING, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as measurement:
        assert measurement.stdout is not None
        server = int(measurement.stdout.readline())
        assert psutil.pid_exists(server)
        measurement.terminate()
        measurement.wait(60)
    assert not psutil.pid_exists(server)


def test_memory_is_what_each_step_added_and_slots_are_no_weights(tmp_path):
    served = Served("float32", ORIGINAL, "float32")
    written = memory_file(served, tmp_path)
    steps = [("slots", 400, 410), ("load", 100, 410), ("kv_cache", 410, 660)]
    written.write_text(
        "".join(
            json.dumps({"step": step, "before_bytes": before, "after_bytes": after, "seconds": 1.0}) + "\n"
            for step, before, after in steps
        )
    )
    spec = replace(scripted(served, tmp_path), name="float32")
    with running([spec], logs=tmp_path, ready_seconds=120) as servers:
        figures = read_memory(servers["float32"], written)
    assert (figures.weights_bytes, figures.slots_bytes, figures.kv_cache_bytes) == (300, 10, 250)
    assert figures.pss_bytes is not None
    assert figures.peak_bytes is not None
    assert 10_000_000 < figures.pss_bytes < figures.peak_bytes
    assert figures.pss_without_kv_bytes == figures.pss_bytes - 250


def test_memory_that_is_given_back_is_not_counted():
    before = anonymous_bytes()
    kept = bytearray(64_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    held = anonymous_bytes()
    assert held - before > 60_000_000
    del kept
    assert anonymous_bytes() - before < 10_000_000


def test_vllm_finds_the_memory_plugin_on_a_servers_path(tmp_path):
    program = (
        "import importlib.metadata as m; e = m.entry_points(group='vllm.general_plugins'); "
        "print([x.load().__module__ for x in e if x.name == 'hotswap_bench_memory'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(plugin_folder(tmp_path)), MEMORY_VARIABLE: str(tmp_path / "m")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['benchmarks.quantisation.memory_plugin']"
