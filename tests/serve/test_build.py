"""Up and down, and the drain in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adapters.errors import RegistryError
from serve.build import GatewayLife, http_limits
from serve.engine.grammar import GrammarGuard
from serve.engine.scripted import ScriptedEngine
from serve.engine_setup import engine_wishes
from serve.errors import DrainingError, EngineDeadError, EngineError, GrammarError, SettingsError
from serve.gateway import Phase
from serve.http.host import LOOPBACK_NAMES
from serve.settings import ServeSettings
from serve.shutdown import drain
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
MakeSettings = Callable[..., ServeSettings]


async def test_up_makes_the_folders_and_down_ends_the_engine(make_settings: MakeSettings) -> None:
    settings = make_settings()
    engine = ScriptedEngine()
    life = GatewayLife(settings, engine=engine)
    gateway = await life.up()
    phases = [gateway.phase]
    assert settings.adapter_folder.is_dir()
    await life.down()
    assert [*phases, gateway.phase] == [Phase.READY, Phase.STOPPED]
    with pytest.raises(EngineError):
        await engine.check_health()
    await life.down()


async def test_the_named_engine_is_made_when_none_is_given(make_settings: MakeSettings) -> None:
    life = GatewayLife(make_settings(max_num_seqs=3))
    gateway = await life.up()
    assert gateway.engine.facts.max_num_seqs == 3
    assert gateway.admission.max_running == 4  # one more than the batch, ready to step in
    await life.down()


async def test_a_start_that_fails_can_be_taken_down(make_settings: MakeSettings, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    life = GatewayLife(make_settings(registry_url=f"sqlite:///{blocked}/registry.db"))
    with pytest.raises(RegistryError):
        await life.up()
    await life.down()


class HeldCompiler(GrammarGuard):
    """Its process comes up when the test says so."""

    begun: asyncio.Event
    may_end: asyncio.Event
    ended_early = False

    async def warm(self) -> bool:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            type(self).ended_early = True
            raise
        return True


class PatientEngine(ScriptedEngine):
    """It comes up only if the schema compiler starts beside it."""

    fails = False

    async def start(self) -> None:
        await HeldCompiler.begun.wait()
        if self.fails:
            raise EngineDeadError("it does not start")
        await super().start()


@pytest.fixture
def held_compiler(monkeypatch: pytest.MonkeyPatch) -> type[HeldCompiler]:
    class Compiler(HeldCompiler):
        pass

    HeldCompiler.begun, HeldCompiler.may_end = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("serve.build.GrammarGuard", Compiler)
    return Compiler


async def test_the_schema_compiler_starts_beside_the_engine_and_ready_waits_for_both(
    make_settings: MakeSettings, held_compiler: type[HeldCompiler]
) -> None:
    life = GatewayLife(make_settings(), engine=PatientEngine())
    up = asyncio.create_task(life.up())
    await held_compiler.begun.wait()
    done, _ = await asyncio.wait({up}, timeout=0.2)
    assert not done
    assert life.gateway is None or life.gateway.phase is Phase.STARTING
    held_compiler.may_end.set()
    assert (await up).phase is Phase.READY
    await life.down()


async def test_an_engine_that_does_not_start_ends_the_schema_compiler(
    make_settings: MakeSettings, held_compiler: type[HeldCompiler]
) -> None:
    engine = PatientEngine()
    engine.fails = True
    life = GatewayLife(make_settings(), engine=engine)
    with pytest.raises(EngineDeadError, match="it does not start"):
        await life.up()
    assert held_compiler.ended_early
    await life.down()


@pytest.mark.parametrize("error", [GrammarError("no compiler"), OSError("no process"), TimeoutError("late")])
async def test_without_a_schema_compiler_the_gateway_serves_on_and_says_so(
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    async def fail(_: GrammarGuard) -> bool:
        raise error

    monkeypatch.setattr(GrammarGuard, "warm", fail)
    life = GatewayLife(make_settings(), engine=ScriptedEngine())
    assert (await life.up()).phase is Phase.READY
    assert f"structured outputs are not available: {error}" in caplog.text
    await life.down()


async def test_the_last_events_are_written_before_the_registry_closes(make_settings: MakeSettings) -> None:
    from adapters.registry.registry import Registry
    from serve.errors import AdapterMissingError

    settings = make_settings()
    life = GatewayLife(settings)
    gateway = await life.up()
    for number in range(20):
        with pytest.raises(AdapterMissingError):
            await gateway.adapters.unload(f"nobody-{number}", actor="test")
    await life.down()
    with Registry(settings.registry) as registry:
        assert len(registry.list_events()) == 20


def test_limits_follow_the_address(make_settings: MakeSettings) -> None:
    assert frozenset(http_limits(make_settings()).allowed_hosts) == LOOPBACK_NAMES
    assert http_limits(make_settings(host="0.0.0.0")).allowed_hosts == ()
    named = http_limits(make_settings(allowed_hosts=("a",), max_body_kib=2))
    assert (named.allowed_hosts, named.max_body_bytes) == (("a",), 2048)


async def test_a_drain_waits_for_what_runs_and_takes_nothing_new(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    gateway.engine.gate.clear()
    call = gateway.call("POST", "/generate", json={"prompt": "x", "stream": True, "max_tokens": 3})
    await gateway.engine.wait_active(1)
    draining = asyncio.create_task(drain(gateway.gateway, 30.0))
    while gateway.gateway.phase is not Phase.DRAINING:
        await asyncio.sleep(0)
    assert (await gateway.client.post("/generate", json={"prompt": "x"})).status_code == 503
    with pytest.raises(DrainingError):
        await gateway.load("risk")
    assert not draining.done()
    gateway.engine.gate.set()
    await draining
    await call.head()
    assert events_of(await call.rest())[-1][0] == "done"
    await call.task
    assert gateway.holds_nothing


async def test_a_drain_ends_what_does_not_finish_with_an_error_that_is_seen(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    gateway.engine.gate.clear()
    call = gateway.call("POST", "/generate", json={"prompt": "x", "stream": True, "max_tokens": 3})
    await gateway.engine.wait_active(1)
    await drain(gateway.gateway, 0.01)
    await call.head()
    name, fields = events_of(await call.rest())[-1]
    assert (name, fields["error"]["code"]) == ("error", "aborted")
    assert "shutting down" in fields["error"]["message"]
    await call.task
    assert gateway.holds_nothing


async def test_an_engine_that_dies_is_started_again(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    gateway.engine.die()
    answer = await gateway.client.post("/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 1})
    if answer.status_code == 503:  # it was noticed before the request came
        while (await gateway.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
        answer = await gateway.client.post(
            "/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 1}
        )
    assert answer.json()["text"] == f"{version} "


async def test_an_engine_that_is_given_up_is_told_once(make_settings: MakeSettings) -> None:
    lost: list[bool] = []
    engine = ScriptedEngine()
    life = GatewayLife(make_settings(engine_max_restarts=0), engine=engine, on_lost=lambda: lost.append(True))
    gateway = await life.up()
    engine.die()
    async with asyncio.timeout(patient(5)):
        while not lost:
            await asyncio.sleep(0.01)
    with pytest.raises(EngineError, match="max-restarts 0"):
        await gateway.engine.check_health()
    await life.down()
    assert lost == [True]


async def test_an_engine_that_ends_while_draining_is_no_loss(make_settings: MakeSettings) -> None:
    lost: list[bool] = []
    engine = ScriptedEngine()
    life = GatewayLife(make_settings(), engine=engine, on_lost=lambda: lost.append(True))
    gateway = await life.up()
    await drain(gateway, 1.0)
    engine.die()
    with pytest.raises(EngineError):
        async with asyncio.timeout(patient(5)):
            while True:
                await gateway.engine.check_health()
                await asyncio.sleep(0.01)
    await life.down()
    assert lost == []


def test_a_reasoning_base_is_recognised_and_can_be_overruled(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.tiny import make_tiny_base

    base = resolve_base(str(make_tiny_base(tmp_path / "tiny")), home=tmp_path / "home")
    plain = read_passport(base, home=tmp_path / "home")
    thinking = plain.model_copy(update={"reasoning": True})
    parsers = [
        engine_wishes(make_settings(reasoning=setting), base, passport).reasoning_parser
        for setting, passport in (("auto", plain), ("auto", thinking), ("off", thinking), ("qwen3", plain))
    ]
    assert parsers == [None, "deepseek_r1", None, "qwen3"]
    wishes = engine_wishes(make_settings(served_model_name="mine"), base, plain)
    assert (wishes.model_name, wishes.model_path) == ("mine", str(base.path))
    assert wishes.context_tokens == plain.facts.context_tokens


def test_a_mixture_of_experts_tells_the_engine_which_layers_take_adapters(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.tiny import make_tiny_base

    folder = make_tiny_base(tmp_path / "tiny", architecture="deepseek_v3")
    base = resolve_base(str(folder), home=tmp_path / "home")
    wishes = engine_wishes(make_settings(), base, read_passport(base, home=tmp_path / "home"))
    assert wishes.lora_targets is not None
    assert "kv_b_proj" not in wishes.lora_targets
    assert {"q_a_proj", "up_proj"} <= set(wishes.lora_targets)
    assert (wishes.model_type, wishes.head_size) == ("deepseek_v3", 128)
    assert wishes.kv_values_per_token == 2 * 2 * 4 * 128  # layers, key and value, heads, width


def test_an_output_layer_in_8_bits_needs_a_record_that_passes(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.tiny import make_tiny_base
    from quantize.lm_head.record import write_record
    from tests.quantize.lm_head.test_record import record

    home = tmp_path / "home"
    base = resolve_base(str(make_tiny_base(tmp_path / "tiny")), home=home)
    passport = read_passport(base, home=home)
    assert engine_wishes(make_settings(), base, passport).lm_head_bits is None
    settings = make_settings(lm_head_bits=8)
    with pytest.raises(
        SettingsError, match=r"not been measured. Run `hotswap quantize .*--lm-head-bits 8` first"
    ):
        engine_wishes(settings, base, passport)
    measured = record(num_tokens=10).model_copy(update={"fingerprint": passport.fingerprint})
    write_record(measured, home)
    with pytest.raises(SettingsError, match="did not pass: 10 tokens are fewer than 1,000"):
        engine_wishes(settings, base, passport)
    write_record(record().model_copy(update={"fingerprint": passport.fingerprint}), home)
    assert engine_wishes(settings, base, passport).lm_head_bits == 8
