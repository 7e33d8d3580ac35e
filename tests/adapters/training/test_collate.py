"""Batches: what lies where, what is learned, and what each token weighs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.encode import EncodedExample
from adapters.data.example import Origin
from adapters.training.collate import PackedCollator, PaddedCollator

EXAMPLES = st.lists(
    st.builds(
        lambda pairs, task: EncodedExample(
            tuple(token for token, _ in pairs), tuple(s for _, s in pairs), task, Origin("x", 1)
        ),
        st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=9),
        st.sampled_from(["risk", "chat"]),
    ),
    min_size=1,
    max_size=6,
)


def example(tokens: int, learned_from: int, task: str = "risk") -> EncodedExample:
    ids = tuple(range(10, 10 + tokens))
    return EncodedExample(ids, tuple(i >= learned_from for i in range(tokens)), task, Origin("x", 1))


def test_a_packed_row_says_where_each_example_begins() -> None:
    batch = PackedCollator()([example(3, 1), example(2, 0)])
    assert batch["input_ids"].tolist() == [[10, 11, 12, 10, 11]]
    # The first token of an example follows nothing, learned or not.
    assert batch["labels"].tolist() == [[-100, 11, 12, -100, 11]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 5]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert batch["max_length_q"] == batch["max_length_k"] == 3
    assert "loss_weights" not in batch and "attention_mask" not in batch


def test_tasks_weigh_what_they_are_given() -> None:
    examples = [example(2, 0, "risk"), example(1, 0, "chat")]
    assert PackedCollator({"chat": 0.5})(examples)["loss_weights"].tolist() == [[1.0, 1.0, 0.5]]
    assert PaddedCollator(0, {"chat": 0.5})(examples)["loss_weights"].tolist() == [[1.0, 1.0], [0.5, 0.5]]
    assert "loss_weights" not in PackedCollator({"chat": 1.0})(examples)


def test_padding_is_not_attended_to_and_not_learned() -> None:
    batch = PaddedCollator(7, pad_to_multiple_of=4)([example(3, 1), example(1, 0)])
    assert batch["input_ids"].tolist() == [[10, 11, 12, 7], [10, 7, 7, 7]]
    assert batch["labels"].tolist() == [[-100, 11, 12, -100], [-100] * 4]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@settings(deadline=None)
@given(EXAMPLES)
def test_packed_and_padded_batches_learn_the_same_tokens(examples: list[EncodedExample]) -> None:
    packed = PackedCollator()(examples)
    padded = PaddedCollator(0)(examples)
    assert packed["input_ids"][0].tolist() == padded["input_ids"][padded["attention_mask"] == 1].tolist()
    assert packed["labels"][0].tolist() == padded["labels"][padded["attention_mask"] == 1].tolist()
    assert int((packed["labels"] != -100).sum()) == sum(one.num_supervised for one in examples)
    assert packed["cu_seq_lens_q"].diff().tolist() == [len(one.input_ids) for one in examples]
