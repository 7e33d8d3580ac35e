"""Who can be asked for by name."""

from __future__ import annotations

import pytest

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.peers.peer import KINDS, PeerChoice, parse_peers


def test_a_kind_is_started_and_a_url_is_taken_as_it_is() -> None:
    assert parse_peers(["vllm", "other=http://127.0.0.1:8001"]) == [
        PeerChoice("vllm"),
        PeerChoice("other", "http://127.0.0.1:8001"),
    ]
    assert [choice.name for choice in parse_peers(list(KINDS))] == list(KINDS)
    assert parse_peers(["gateway@default:float32"]) == [
        PeerChoice("gateway@default:float32", base="default:float32")
    ]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "names nobody"),
        (["sglang"], "none of vllm, "),
        (["gateway@"], "none of vllm, "),
        (["other=127.0.0.1:8001"], "NAME=http://HOST:PORT"),
        (["=http://127.0.0.1:8001"], "NAME=http://HOST:PORT"),
        (["vllm", "vllm"], "a name can be given once"),
        (["gateway=http://127.0.0.1:8001"], "gateway is ours"),
    ],
)
def test_what_cannot_be_compared_with_is_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(LoadOptionError, match=reason):
        parse_peers(texts)
