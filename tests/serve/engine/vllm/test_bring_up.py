"""The parts of a start: who gets a fork server, what vLLM's parser refuses, what the worker tells."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from serve.engine.cpu import forked_core, start_report
from serve.engine.cpu.plugin import PATCHES_VARIABLE
from serve.engine.vllm.arguments import EngineArguments
from serve.engine.vllm.bring_up import note_engine_stages, parse_arguments, start_fork_server
from serve.errors import SettingsError
from serve.observability.startup import process_began

# Of torch about itself, when vLLM is imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each fork server that would have been started."""
    started: list[str] = []

    def start() -> bool:
        started.append("server")
        return True

    monkeypatch.setattr(forked_core, "start_server", start)
    return started


def chosen(patches: str | None, *arguments: str) -> EngineArguments:
    environment = {} if patches is None else {PATCHES_VARIABLE: patches}
    return EngineArguments(arguments=list(arguments), environment=environment)


@pytest.mark.parametrize(
    ("arguments", "num_servers"),
    [
        (chosen("all", "--enforce-eager"), 1),
        (chosen("uniproc,forked-core"), 1),
        (chosen("uniproc"), 0),
        (chosen(""), 0),
        (chosen(None), 0),  # on a GPU no parts are chosen
        (chosen("all", "--tensor-parallel-size=2"), 0),
        (chosen("all", "--data-parallel-size=2"), 0),
    ],
    ids=["all", "named", "not named", "none", "gpu", "tensor parallel", "data parallel"],
)
def test_a_fork_server_is_for_one_engine_on_a_cpu_with_that_part(
    servers: list[str], arguments: EngineArguments, num_servers: int
) -> None:
    start_fork_server(arguments)
    assert len(servers) == num_servers


def test_what_vllms_parser_says_is_the_reason() -> None:
    with pytest.raises(SettingsError, match=r"does not take these --engine-arg settings: .*--nonsense"):
        parse_arguments(["--model", "/bases/smol", "--nonsense=1"])


class Worker:
    """vLLM's client, as far as it asks a worker."""

    def __init__(self, stages: dict[str, float]) -> None:
        self.stages = stages
        self.asked: list[str] = []

    async def collective_rpc(self, method: str) -> Sequence[dict[str, float]]:
        self.asked.append(method)
        return [self.stages]


async def test_stages_of_the_worker_stand_in_the_gateways_line(caplog: pytest.LogCaptureFixture) -> None:
    began = process_began()
    worker = Worker({"engine: process begun": began + 2.0, "engine: weights loaded": began + 3.5})
    with caplog.at_level(logging.INFO, logger="hotswap.start"):
        await note_engine_stages(worker)
    assert worker.asked == [start_report.METHOD]
    assert [record.getMessage() for record in caplog.records] == [
        "start: engine: process begun after 2.00 s",
        "start: engine: weights loaded after 3.50 s",
    ]
