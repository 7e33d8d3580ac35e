"""What a probe remembers is what was said last, of the texts that were used last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.lifecycle import probe_memory
from serve.lifecycle.probe_memory import ProbeMemory


@given(words=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30))
def test_the_texts_used_last_are_remembered_with_what_was_said_last(words: list[tuple[bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_memory, "MAX_TEXTS", 3)
        memory = ProbeMemory()
    model: dict[int, float] = {}
    for number, (keeps, text) in enumerate(words):
        if keeps:
            memory.keep_base([text], [text, 1], [float(number)])
            model.pop(text, None)
            model[text] = float(number)
            if len(model) > 3:
                del model[next(iter(model))]
        else:
            found = memory.base_said([text], [text, 1])
            assert found == ((model[text],) if text in model else None)
            if text in model:
                model[text] = model.pop(text)


def test_a_proof_holds_for_one_content_and_one_probe_until_it_is_doubted() -> None:
    memory = ProbeMemory()
    memory.keep_proven("a", "probe")
    assert memory.has_proven("a", "probe")
    assert not memory.has_proven("a", "another probe")
    assert not memory.has_proven("b", "probe")
    memory.doubt("a", "probe")
    assert not memory.has_proven("a", "probe")


def test_the_largest_rounding_is_kept() -> None:
    memory = ProbeMemory()
    for nats in (0.1, 0.3, 0.2):
        memory.note_rounding(nats, nats / 2)
    assert (memory.rounding_max_nats, memory.rounding_rms_nats) == (0.3, 0.15)
