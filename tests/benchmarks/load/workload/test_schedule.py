"""What is sent, when and to whom is known before the first request, and the same for the same seed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.load.workload.assignment import parse_assignment
from benchmarks.load.workload.lengths import parse_lengths
from benchmarks.load.workload.schedule import Load, Schedule, make_schedule

ADAPTERS = tuple(f"a{number}" for number in range(8))


def load_of(arrivals: str = "poisson:20", mix: str = "uniform", **changes) -> Load:
    load = Load(
        parse_arrivals(arrivals),
        parse_lengths("uniform:8,64", option="--prompt-tokens"),
        parse_lengths("16", option="--answer-tokens"),
        parse_assignment(mix),
        ADAPTERS,
    )
    return replace(load, **changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("poisson:50", 50 * 100), ("gamma:50,2", 50 * 100), ("constant:50", 5000), ("burst:20,10", 200)],
)
def test_each_process_brings_its_rate(text, expected):
    times = parse_arrivals(text).times(100.0, seed=3)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 100.0
    assert len(times) == pytest.approx(expected, rel=0.1)


def test_gamma_gaps_vary_as_asked():
    times = parse_arrivals("gamma:100,3").times(200.0, seed=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(3.0, rel=0.1)


def test_a_ramp_grows_evenly():
    times = parse_arrivals("ramp:0,40").times(100.0, seed=1)
    early, late = sum(t < 50 for t in times), sum(t >= 50 for t in times)
    assert late / early == pytest.approx(3.0, rel=0.2)


def test_a_trace_is_sent_as_it_was_written(tmp_path):
    path = tmp_path / "trace.jsonl"
    lines = [{"timestamp": 12.5, "max_tokens": 3, "adapter": "a1"}, {"timestamp": 10.0, "prompt_tokens": 9}]
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = make_schedule(load_of(f"trace:{path}"), seconds=60, seed=1).arrivals
    assert (first.at_seconds, first.prompt_tokens) == (0.0, 9)
    assert (second.at_seconds, second.max_tokens, second.adapter) == (2.5, 3, "a1")


def test_bad_lines_of_a_trace_are_all_named(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"at_seconds": 1}\nnonsense\n{"at_seconds": "x"}\n{"at_seconds": 1, "max_tokens": 0}\n{"a": 1}'
    )
    with pytest.raises(LoadOptionError) as refused:
        parse_arrivals(f"trace:{path}")
    for part in ("line 2", "line 3: at_seconds", "line 4: max_tokens 0", "line 5: a is unknown"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "poisson",
        "poisson:0",
        "poisson:-1",
        "poisson:nan",
        "poisson:1,2",
        "poisson:rate=1,rate=2",
        "gamma:4",
        "closed:0",
        "closed:1.5",
        "closed:9999999",
        "burst:2.5,1",
        "ramp:0,0",
        "steady:4",
        "trace:/no/such/file",
    ],
)
def test_arrivals_that_mean_nothing_are_refused_with_what_was_written(text):
    with pytest.raises(LoadOptionError, match=text.partition(":")[0]):
        parse_arrivals(text)


def test_more_requests_than_can_be_kept_are_refused():
    with pytest.raises(LoadOptionError, match="more than"):
        parse_arrivals("poisson:1000000").times(3600, seed=1)


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 7), closed=st.booleans())
def test_shards_are_together_the_schedule(seed, workers, closed):
    whole = make_schedule(
        load_of("closed:9" if closed else "poisson:20"), seconds=5, seed=seed, closed_requests=50
    )
    shards = [whole.shard(index, workers) for index in range(workers)]
    together = sorted((one for shard in shards for one in shard.arrivals), key=lambda one: one.number)
    assert tuple(together) == whole.arrivals
    if closed:
        assert sum(shard.closed_workers or 0 for shard in shards) == 9


@given(seed=st.integers(0, 2**32))
def test_the_same_seed_is_the_same_load_and_survives_its_file(seed):
    one = make_schedule(load_of(), seconds=4, seed=seed)
    again = Schedule.from_json(make_schedule(load_of(), seconds=4, seed=seed).to_json())
    assert one == again
    assert one.digest == again.digest


def test_another_mix_of_adapters_leaves_the_times_as_they_are():
    one = make_schedule(load_of(mix="uniform"), seconds=10, seed=5)
    other = make_schedule(load_of(mix="skewed:2"), seconds=10, seed=5)
    assert [a.at_seconds for a in one.arrivals] == [a.at_seconds for a in other.arrivals]
    assert one.digest != other.digest


def shares(mix: str, base_share: float = 0.0) -> dict[str | None, float]:
    drawn = parse_assignment(mix).draw(ADAPTERS, 8000, 1, base_share=base_share)
    return {name: drawn.count(name) / len(drawn) for name in (*ADAPTERS, None)}


def test_adapters_are_asked_as_the_mix_says():
    assert shares("identical")["a0"] == 1.0
    assert all(share == pytest.approx(1 / 8, rel=0.15) for name, share in shares("uniform").items() if name)
    assert all(share == 1 / 8 for name, share in shares("distinct").items() if name)
    skewed = shares("skewed")
    assert skewed["a0"] / skewed["a3"] == pytest.approx(4.0, rel=0.15)
    assert shares("uniform", base_share=0.25)[None] == pytest.approx(0.25, abs=0.02)


def test_without_adapters_the_base_is_asked():
    assert parse_assignment("uniform").draw((), 3, 1) == [None, None, None]


def test_lengths_stay_within_what_the_server_takes():
    lengths = parse_lengths("lognormal:64,2", option="--prompt-tokens").draw(2000, 1, least=1, most=100)
    assert min(lengths) >= 1
    assert max(lengths) == 100
    assert sorted(lengths)[1000] == pytest.approx(64, rel=0.15)


@pytest.mark.parametrize("text", ["0", "x", "uniform:9,3", "uniform:9", "zipf:3"])
def test_lengths_that_mean_nothing_are_refused(text):
    with pytest.raises(LoadOptionError, match="--answer-tokens"):
        parse_lengths(text, option="--answer-tokens")
