"""What the shipped set promises."""

from __future__ import annotations

from quantize.calibration.default_set import as_plain_text, default_examples, default_held_out


def test_the_held_out_part_asks_nothing_that_is_calibrated_with() -> None:
    calibrated = {part for example in default_examples() for part in _said(example.parts())}
    held_out = [part for example in default_held_out() for part in _said(example.parts())]
    assert len(held_out) > 100
    assert not calibrated & set(held_out)


def test_it_holds_every_domain_in_both_parts() -> None:
    domains = {
        "questions",
        "instructions",
        "finance",
        "medicine",
        "code",
        "maths",
        "summarising",
        "translating",
        "chinese",
    }
    assert {example.task for example in default_examples()} == domains
    assert {example.task for example in default_held_out()} == domains
    assert len(default_examples()) >= 300


def test_plain_text_keeps_every_word() -> None:
    examples = default_examples()[:5]
    for example, plain in zip(examples, as_plain_text(examples), strict=True):
        assert plain.text == "\n\n".join(example.parts())
        assert plain.shape == "text"


def _said(parts: tuple[str, ...]) -> list[str]:
    """Texts long enough that two people would not say the same by chance."""
    return [part for part in parts if len(part) > 30 and not part.startswith(("You are", "Classify"))]
