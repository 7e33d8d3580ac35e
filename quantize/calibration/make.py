"""From the user's files, or the shipped set, to rows of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from adapters.data.example import Example
from bases.architecture import ArchitectureFacts, read_architecture
from bases.progress import Progress, log_progress
from bases.resolve import ResolvedBase
from bases.settings import BasesSettings
from quantize.calibration.calibration_set import CalibrationSet, CalibrationStats
from quantize.calibration.coverage import uncovered_share
from quantize.calibration.documents import DocumentEncoder
from quantize.calibration.errors import CalibrationError
from quantize.calibration.own_answers import MAX_PARAMETERS
from quantize.calibration.packing import pack_rows
from quantize.calibration.texts import DEFAULT_SOURCE, Texts, evaluated_texts, shipped_texts, user_texts

Answers = Literal["own", "reference"]

# The second moments of a layer's inputs cannot have full rank on fewer tokens than the layer has inputs, and are
# noisy on few times as many (docs/calibration.md).
TOKENS_PER_INPUT = 6
# Of the evaluation text's tokens; see docs/calibration.md for what was measured.
MAX_UNCOVERED_SHARE = 0.2
# Of a large file, so many times the wanted tokens are encoded, for the seed to choose from.
_CHOICE = 4
_MOST_HELD_OUT_TOKENS = 1 << 20
_MOST_PROMPTS = 256
_ALL_ROWS = 1 << 60


def least_tokens(facts: ArchitectureFacts) -> int:
    """The widest input of a linear layer: with fewer tokens no calibration can tell all of its inputs apart."""
    return max((inputs for inputs, _ in facts.linear_modules.values()), default=1)


def make_calibration(
    base: ResolvedBase,
    *,
    data: Sequence[Path] = (),
    num_samples: int,
    row_tokens: int,
    seed: int = 0,
    progress: Progress = log_progress,
    evaluation: Sequence[Path] = (),
    answers: Answers = "reference",
    home: Path | None = None,
) -> CalibrationSet:
    """Up to `num_samples` rows of exactly `row_tokens` tokens, and held-out rows to measure with.

    `data` are files or folders in any form that training reads, encoded as training encodes them; without any, the
    shipped set. `evaluation` is what the held-out rows are made of; without it, a fifth of the user's examples, or
    the held-out part of the shipped set. `answers` says whether the base answers the shipped prompts itself; a
    base without chat template or of more than MAX_PARAMETERS parameters does not. The same arguments give the same
    rows. Raises CalibrationError where no row can be filled, DataError for files that cannot be read.
    """
    facts = read_architecture(base.path)
    if not 2 <= row_tokens <= facts.context_tokens:
        raise CalibrationError(
            f"Calibration rows of {row_tokens:,} tokens cannot be read by {base.name}, whose context is 2 to "
            f"{facts.context_tokens:,} tokens. Choose a length within it."
        )
    encoder = DocumentEncoder(base)
    texts = _texts(data, evaluation, encoder, seed)
    own = (
        not data
        and answers == "own"
        and encoder.has_template
        and facts.quant_method is None
        and facts.num_parameters <= MAX_PARAMETERS
    )
    if own:
        documents = encoder.answered(
            texts.calibration,
            num_tokens=num_samples * row_tokens,
            home=home or BasesSettings().home,
            progress=progress,
        )
    else:
        progress(f"Encoding up to {len(texts.calibration):,} examples to calibrate with")
        documents = encoder.encode(
            _shuffled(texts.calibration, seed), most_tokens=_CHOICE * num_samples * row_tokens
        )
    packed = pack_rows(documents.ids, row_tokens=row_tokens, num_rows=num_samples, seed=seed)
    if not packed.rows:
        raise CalibrationError(
            f"The calibration text ({texts.source}) has {documents.num_tokens:,} tokens, which do not fill one row "
            f"of {row_tokens:,}. Give more text, or shorter rows."
        )
    held_out = _shuffled(texts.held_out, seed)
    held_documents = encoder.encode(held_out, most_tokens=_MOST_HELD_OUT_TOKENS).ids
    held_rows = pack_rows(held_documents, row_tokens=row_tokens, num_rows=_ALL_ROWS, seed=seed).rows
    if not held_rows:
        held_rows = [[token for document in held_documents for token in document]]
    compared = encoder.encode(texts.compared, most_tokens=_MOST_HELD_OUT_TOKENS).ids
    stats = CalibrationStats(
        source=f"{texts.source}, answered by the base itself" if own else texts.source,
        examples=len({documents.examples[index] for index in packed.documents}),
        rows=len(packed.rows),
        tokens=len(packed.rows) * row_tokens,
        distinct_tokens=len({token for row in packed.rows for token in row}),
        row_tokens=row_tokens,
        uncovered_share=uncovered_share(packed.rows, compared),
        held_out_examples=len(texts.held_out),
        held_out_rows=len(held_rows),
    )
    return CalibrationSet(
        rows=packed.rows,
        held_out_rows=held_rows,
        held_out_prompts=encoder.prompts(held_out[:_MOST_PROMPTS]),
        stats=stats,
        warnings=(
            *_warnings(stats, num_samples, least_tokens(facts), texts.compared_source),
            *encoder.warnings(),
        ),
    )


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """In an order that the seed decides, so that the beginning is a fair choice."""
    order = list(examples)
    random.Random(seed).shuffle(order)  # noqa: S311 - a choice, no secret
    return order


def _texts(data: Sequence[Path], evaluation: Sequence[Path], encoder: DocumentEncoder, seed: int) -> Texts:
    """The examples, those of the shipped set in a form that the base can be given."""
    if evaluation:
        texts = evaluated_texts(data, evaluation)
    else:
        texts = user_texts(data, seed) if data else shipped_texts()
        texts = replace(texts, compared=encoder.shipped(texts.compared))
    if not data:
        texts = replace(texts, calibration=encoder.shipped(texts.calibration))
        if not evaluation:
            texts = replace(texts, held_out=texts.compared)
    return texts


def _warnings(stats: CalibrationStats, num_samples: int, inputs: int, compared: str) -> Iterator[str]:
    if stats.rows < num_samples:
        more = "; give a file of your own for more" if stats.source.startswith(DEFAULT_SOURCE) else ""
        yield f"the calibration text fills {stats.rows:,} of {num_samples:,} rows{more}"
    if stats.tokens < TOKENS_PER_INPUT * inputs:
        yield (
            f"the calibration text is small: {stats.tokens:,} tokens for layers with up to {inputs:,} inputs; "
            f"{TOKENS_PER_INPUT * inputs:,} are needed to round by, and more are better"
        )
    if stats.uncovered_share > MAX_UNCOVERED_SHARE:
        yield (
            f"the calibration text is unlike {compared}: {100 * stats.uncovered_share:.0f} % of that text's tokens "
            f"occur nowhere in it (at most {100 * MAX_UNCOVERED_SHARE:.0f} % are usual); calibrate with text like "
            "that the base will be asked, or with the default set"
        )
