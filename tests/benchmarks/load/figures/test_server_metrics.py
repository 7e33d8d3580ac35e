"""What a server tells of itself, from made-up scrapes of each kind of server, and from one over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.figures.scraper import Scrape, Scraper
from benchmarks.load.figures.server_metrics import COUNTERS, GAUGES, HISTOGRAMS, WANTED, server_figures
from benchmarks.load.window import Window


def scrape(at: float, *lines: str) -> Scrape:
    return Scrape(at, 0.01, lines)


def test_our_gateway_is_read_by_version_and_stage() -> None:
    def at(moment: float, asked: int) -> Scrape:
        return scrape(
            moment,
            f'hotswap_requests_total{{route="/generate",adapter="risk",version="3f2a91c0",status="200"}} {asked}',
            f'hotswap_requests_total{{route="/generate",adapter="base",version="",status="200"}} {2 * asked}',
            f'hotswap_rejections_total{{code="queue_full"}} {asked}',
            f'hotswap_stage_seconds_sum{{stage="entry"}} {0.5 * asked}',
            f'hotswap_stage_seconds_count{{stage="entry"}} {asked}',
            f'hotswap_process_memory_bytes{{process="gateway"}} {100 + asked}',
            "process_resident_memory_bytes 7",
            f"hotswap_queued_requests {asked}",
        )

    found = server_figures([at(0.0, 2), at(5.0, 4), at(10.0, 12)])
    assert found["reason"] is None
    assert found["seconds"] == 10.0
    assert found["counters"] == {"requests": 30.0, "rejections": 10.0, "errors": 0.0, "aborts": 0.0}
    assert found["rejections"] == {"queue_full": 10.0}
    assert found["versions"] == {"base": {"requests": 20.0}, "risk@3f2a91c0": {"requests": 10.0}}
    assert found["histograms"] == {"hotswap_stage_seconds/entry": {"count": 10.0, "mean": 0.5}}
    assert found["gauges"]["waiting_in_gateway"] == {"mean": 6.0, "max": 12.0}
    assert found["gauges"]["memory_gateway_bytes"]["max"] == 112.0
    assert "memory_server_bytes" not in found["gauges"]


def test_stock_vllm_is_read_too() -> None:
    def at(moment: float, tokens: int) -> Scrape:
        return scrape(
            moment,
            f'vllm:generation_tokens_total{{engine="0",model_name="m"}} {tokens}',
            f'vllm:generation_tokens_total{{engine="1",model_name="m"}} {tokens}',
            'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25',
            "process_resident_memory_bytes 7",
        )

    found = server_figures([at(0.0, 0), at(2.0, 10)])
    assert found["counters"] == {"completion_tokens": 20.0}
    assert found["gauges"]["kv_cache_usage"]["mean"] == 0.25
    assert found["gauges"]["memory_server_bytes"]["max"] == 7.0
    assert found["series"][1]["tokens_per_second"] == 10.0


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20), st.data())
def test_what_is_counted_is_counted_whenever_the_engine_begins_anew(steps: list[int], data: st.DataObject):
    value, scrapes = 0, [scrape(0.0, "vllm:num_preemptions_total 0")]
    for place, step in enumerate(steps, 1):
        if value and data.draw(st.booleans()):
            value = 0
            scrapes.append(scrape(place - 0.5, "vllm:num_preemptions_total 0"))
        value += step
        scrapes.append(scrape(float(place), f"vllm:num_preemptions_total {value}"))
    assert server_figures(scrapes)["counters"]["preemptions"] == sum(steps)


@pytest.mark.parametrize("scrapes", [[], [scrape(0.0, "hotswap_queued_requests 1")], [scrape(0.0)] * 3])
def test_a_server_that_told_too_little_has_no_figures_but_a_reason(scrapes: list[Scrape]) -> None:
    assert list(server_figures(scrapes)) == ["reason"]
    assert server_figures(scrapes)["reason"]
    assert server_figures(scrapes, "it answers 404")["reason"] == "it answers 404"


def test_vllm_has_the_series_that_are_read() -> None:
    vllm = pytest.importorskip("vllm")
    source = (Path(vllm.__file__).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    named = {
        name.removesuffix("_total") for names in (*GAUGES.values(), *COUNTERS.values()) for name in names
    }
    for name in named | set(HISTOGRAMS):
        if name.startswith("vllm:"):
            assert f'name="{name}"' in source


class Asked(list[str | None]):
    """The keys that a server was asked with; `arrived` is let go once for each."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Semaphore(0)


@contextmanager
def answering(status: int, asked: Asked) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization"))
            asked.arrived.release()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"# HELP x y\nhotswap_queued_requests 3\nunknown_series 1\n")

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read(url: str, asked: Asked, *, every: float, until: int) -> Scraper:
    """What a scraper of a short window has when it has asked so often."""
    scraper = Scraper(url, Window(0.0, 0.2), wanted=WANTED, key="secret", every=every)
    with scraper.reading(time.monotonic()):
        for _ in range(until):
            asked.arrived.acquire(timeout=30.0)
    return scraper


def test_both_ends_of_the_window_are_read_and_only_what_is_wanted_is_kept() -> None:
    asked = Asked()
    with answering(200, asked) as url:
        scraper = read(url, asked, every=0.0, until=2)
    assert asked == ["Bearer secret"] * 2
    assert scraper.reason is None
    assert [one.lines for one in scraper.scrapes] == [("hotswap_queued_requests 3",)] * 2
    assert scraper.scrapes[0].at_seconds < scraper.scrapes[1].at_seconds
    assert scraper.scrapes[1].at_seconds >= 0.2


def test_a_server_that_refuses_is_asked_once_and_its_answer_is_the_reason() -> None:
    asked = Asked()
    with answering(403, asked) as url:
        scraper = read(url, asked, every=0.01, until=1)
    assert len(asked) == 1
    assert scraper.scrapes == []
    assert "403" in (scraper.reason or "")
    assert "scope" in (scraper.reason or "")
