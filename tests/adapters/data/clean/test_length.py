"""The length filter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.data.clean.length import filter_length
from adapters.data.example import Example, Origin


def test_too_short_and_too_long_say_the_figures(ask) -> None:
    examples = [ask("ab", "c"), ask("问" * 6, "答" * 3), ask("x" * 1_990, "y" * 20)]
    result = filter_length(examples, min_characters=5, max_characters=2_000)
    assert result.kept == (examples[1],)
    assert [finding.reason for finding in result.removed] == [
        "3 characters (prompt 2, answer 1), at least 5 wanted",
        "2,010 characters (prompt 1,990, answer 20), at most 2,000 wanted",
    ]
    assert result.counts == (("too long", 1), ("too short", 1))


def test_empty_prompts_and_answers_go_whatever_the_limits(ask, plain) -> None:
    examples = [ask("what", " \n"), ask("", "x"), ask("", "x", system="be kind"), plain(" "), plain("x")]
    result = filter_length(examples, min_characters=0, max_characters=None)
    assert result.kept == (examples[2], examples[4])
    assert [finding.reason for finding in result.removed] == ["empty answer", "empty prompt", "empty text"]


@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12))), st.integers(0, 20), st.integers(0, 20)
)
def test_kept_and_removed_are_the_input(pairs: list[tuple[str, str]], low: int, high: int) -> None:
    examples = [
        Example(Origin("f", i), prompt=ask, completion=answer) for i, (ask, answer) in enumerate(pairs)
    ]
    result = filter_length(examples, min_characters=low, max_characters=high)
    together = [*result.kept, *(finding.example for finding in result.removed)]
    assert sorted(together, key=lambda example: example.origin.line) == examples
    assert list(result.kept) == [example for example in examples if example in result.kept]
