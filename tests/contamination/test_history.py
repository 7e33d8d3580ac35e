"""What may have answered, for requests before, while and after names move."""

from __future__ import annotations

import time

from tests.contamination.history import History
from tests.contamination.standing import NOTHING


def now() -> float:
    return time.perf_counter()


def test_a_name_that_never_was_is_answered_by_nothing():
    assert History().allowed("risk", now() - 1, now()) == {NOTHING}


def test_while_a_name_moves_both_sides_may_answer_and_after_it_only_the_new_one():
    history = History()
    with history.change({"risk": frozenset({"v1"})}):
        assert history.now("risk") == {NOTHING, "v1"}
    assert history.now("risk") == {"v1"}
    before = now()
    with history.change({"risk": frozenset({"v2"})}):
        during = now()
    after = now()
    assert history.allowed("risk", before, before) == {"v1"}
    assert history.allowed("risk", during, during) == {"v1", "v2"}
    assert history.allowed("risk", after, after) == {"v2"}
    assert history.allowed("risk", before, after) == {"v1", "v2"}


def test_a_verb_that_failed_changes_nothing():
    history = History()
    with history.change({"risk": frozenset({"v1"})}):
        pass
    with history.change({"risk": frozenset({"v2"})}) as change:
        change.fail()
    assert history.now("risk") == {"v1"}
    assert history.now("other") == {NOTHING}


def test_a_canary_answers_beside_the_stable_version():
    history = History()
    with history.change({"risk": frozenset({"v1", "v2"})}):
        pass
    assert history.now("risk") == {"v1", "v2"}


def test_an_error_is_excused_for_its_name_its_code_and_its_time():
    history = History()
    before = now()
    with history.excuse("aborted", name="risk"):
        during = now()
    after = now()
    assert history.excused("aborted", "risk", before, during)
    assert history.excused("aborted", "risk", during, after)
    assert not history.excused("aborted", "other", before, after)
    assert not history.excused("engine_dead", "risk", before, after)
    assert not history.excused("aborted", "risk", after, now())
    with history.excuse("engine_dead"):
        assert history.excused("engine_dead", None, now(), now())
