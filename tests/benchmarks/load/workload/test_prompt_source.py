"""The texts that are sent."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.load.workload.prompt_source import PromptSource

SOURCE = PromptSource(seed=1)


def texts(source: PromptSource, count: int = 50) -> list[str]:
    return [source.prompt(number, 32) for number in range(count)]


def test_prompts_are_repeatable_equally_long_and_all_different():
    assert texts(SOURCE) == texts(SOURCE)
    assert {len(text.split()) for text in texts(SOURCE)} == {32}
    assert len(set(texts(SOURCE))) == 50


def test_another_seed_or_salt_brings_other_texts():
    for other in (replace(SOURCE, seed=2), replace(SOURCE, salt="/kill-1")):
        assert not set(texts(SOURCE)) & set(texts(other))


def test_what_the_server_puts_around_a_text_is_taken_off_its_length():
    assert len(replace(SOURCE, overhead_tokens=12).prompt(0, 32).split()) == 20


def test_prompts_begin_alike_only_where_it_is_asked_for():
    shared = {text.split()[:8].__str__() for text in texts(replace(SOURCE, shared_prefix_tokens=8))}
    assert len(shared) == 1
    assert len({text.split()[:8].__str__() for text in texts(SOURCE)}) == 50
