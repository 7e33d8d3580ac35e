"""The server ends while a stream runs, and is started again on the same home."""

from __future__ import annotations

import psutil
import pytest

from tests.serve.live.two_lives import NAMES, STREAM_TOKENS, ask_everything

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_sigterm_lets_a_running_stream_finish_and_ends_with_0(two_lives):
    first = two_lives.first
    assert first.exit_code == 0, first.log
    name, done = first.stream[-1]
    assert name == "done"
    assert done["usage"]["completion_tokens"] == STREAM_TOKENS
    assert {name for name, _ in first.stream[:-1]} == {"delta"}


def test_new_work_is_refused_meanwhile(two_lives):
    refused = two_lives.first.refused
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert two_lives.first.not_ready.status_code == 503


def test_the_same_versions_are_live_again(two_lives):
    with two_lives.second.client() as client:
        now = {a["name"]: a for a in client.get("/admin/adapters").json()["adapters"]}
    assert {name: adapter["live"] for name, adapter in now.items()} == two_lives.first.live
    assert now.keys() == set(NAMES)
    assert [len(adapter["versions"]) for adapter in now.values()] == [1, 1]


def test_they_answer_as_before(two_lives):
    before = two_lives.first.answers
    with two_lives.second.client() as client:
        after = ask_everything(client)
    assert before.keys() == after.keys() == {None, *NAMES}
    for who, answer in after.items():
        assert answer["text"] == before[who]["text"]
        assert answer["adapter"] == before[who]["adapter"]
        for now, then in zip(answer["logprobs"], before[who]["logprobs"], strict=True):
            assert (now["id"], now["logprob"]) == (then["id"], pytest.approx(then["logprob"], abs=1e-4))
    # The three are different, or all of this would hold without adapters.
    assert len({round(answer["logprobs"][0]["logprob"], 3) for answer in after.values()}) == 3


def test_no_process_of_the_first_life_is_left(two_lives):
    assert len(two_lives.first.pids) > 1  # the server and its engine
    assert [pid for pid in two_lives.first.pids if psutil.pid_exists(pid)] == []
