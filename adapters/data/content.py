"""What an example says, apart from where it was read: digests and the form it is written in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from adapters.data.example import Example
from adapters.data.source import DEFAULT_TASK


def to_row(example: Example) -> dict[str, object]:
    """The example as one JSON object, in a shape that `read_examples` reads back as the same example."""
    row: dict[str, object] = {}
    if example.messages:
        row["messages"] = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    elif example.text is not None:
        row["text"] = example.text
    else:
        row |= {"prompt": example.prompt, "completion": example.completion}
    if example.label is not None:
        row["label"] = example.label
    if example.task != DEFAULT_TASK:
        row["task"] = example.task
    return row


def to_line(example: Example) -> str:
    """`to_row` as one line of JSON."""
    return json.dumps(to_row(example), ensure_ascii=False)


def content_digest(example: Example) -> str:
    """sha256 in hex of the example's content; its origin has no part in it."""
    return hashlib.sha256(to_line(example).encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(splits: Mapping[str, Sequence[Example]] | Iterable[tuple[str, Sequence[Example]]]) -> str:
    """sha256 in hex over the content of all splits, in order."""
    whole = hashlib.sha256()
    for name, examples in dict(splits).items():
        whole.update(f"{name} {len(examples)}\n".encode())
        for example in examples:
            whole.update(f"{content_digest(example)}\n".encode())
    return whole.hexdigest()
