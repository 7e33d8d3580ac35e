"""Answers through transformers: left-padded batches of similar length, greedy, with a key-value cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Answer, Likelihood, Unavailable
from adapters.evaluation.answerers.answerer import Keep, Progress, keep_nothing
from adapters.evaluation.answerers.label_scores import exclusive, label_place, token_pieces
from adapters.evaluation.answerers.likelihood import example_likelihoods
from adapters.evaluation.answerers.transformers_model import LoadedModel
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question

_LEADS = ("", " ")  # what a token may hold before a label


class TransformersAnswerer:
    """Answers with the adapter of a loaded model, or with its base alone."""

    def __init__(
        self, loaded: LoadedModel, *, adapter: bool, name: str, max_new_tokens: int, batch_size: int
    ) -> None:
        self.description = name
        self._loaded = loaded
        self._adapter = adapter
        self._max_new_tokens = max_new_tokens
        self._batch_size = batch_size

    def answer(
        self,
        questions: Sequence[Question],
        *,
        rule: LabelRule | None,
        progress: Progress,
        keep: Keep = keep_nothing,
    ) -> list[Answer]:
        prompts = [self._encode(question) for question in questions]
        answers: dict[int, Answer] = {}
        # The longest come first, so that a batch that does not fit in memory fails at once.
        for batch in batches([len(p) for p in prompts], self._batch_size, equal=self._loaded.prompt_learning):
            given = self._answer_batch([prompts[index] for index in batch], rule)
            for place, answer in zip(batch, given, strict=True):
                answers[place] = answer
                keep(place, answer)
            progress(len(answers), len(questions))
        return [answers[index] for index in range(len(questions))]

    def likelihoods(
        self, examples: Sequence[Example], *, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        return example_likelihoods(self._loaded, examples, adapter=self._adapter, progress=progress)

    def _encode(self, question: Question) -> list[int]:
        codec, room = self._loaded.codec, self._loaded.context_tokens
        if question.messages:
            ids = codec.encode_chat(question.as_dicts())
        else:
            ids = codec.encode(question.prompt or "", parse_special=False)
        if room is not None and len(ids) + self._max_new_tokens > room:
            raise EvaluationError(
                f"a prompt of {len(ids)} tokens and {self._max_new_tokens} to generate exceed the base's context "
                f"of {room} tokens (it begins {question.shown[:60]!r}); lower --max-new-tokens or shorten the data"
            )
        return ids

    def _answer_batch(self, prompts: Sequence[Sequence[int]], rule: LabelRule | None) -> list[Answer]:
        import torch

        loaded = self._loaded
        width = max(len(prompt) for prompt in prompts)
        padded = [[loaded.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        recorder = _LabelRecorder(self._single_token_labels(rule))
        started = time.perf_counter()
        with loaded.speaking(adapter=self._adapter) as model:
            sequences = model.generate(
                input_ids=torch.tensor(padded, device=model.device),  # [B, width]
                attention_mask=torch.tensor(mask, device=model.device),
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                eos_token_id=sorted(loaded.end_ids) or None,
                pad_token_id=loaded.pad_id,
                logits_processor=[recorder],
            )
        seconds = time.perf_counter() - started
        answers = [self._read(row[width:].tolist(), seconds) for row in sequences]
        if rule is None or not rule.labels:
            return answers
        return [
            self._scored(prompt, answer, rule, recorder, row)
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]

    def _read(self, ids: list[int], seconds: float) -> Answer:
        end = next((place for place, token in enumerate(ids) if token in self._loaded.end_ids), None)
        said = ids if end is None else ids[:end]
        return Answer(
            text=self._text(said),
            num_tokens=len(ids) if end is None else end + 1,
            finish_reason="length" if end is None else "stop",
            seconds=seconds,
            token_ids=tuple(ids if end is None else ids[: end + 1]),
        )

    def _text(self, ids: Sequence[int]) -> str:
        return str(
            self._loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _single_token_labels(self, rule: LabelRule | None) -> dict[int, int]:
        """Column of each token that is a whole label: their probabilities are kept at every step."""
        texts = [lead + label for label in (rule.labels if rule is not None else ()) for lead in _LEADS]
        encoded = [self._loaded.text_ids(text) for text in texts]
        ids = sorted({token_ids[0] for token_ids in encoded if len(token_ids) == 1})
        return {token: column for column, token in enumerate(ids)}

    def _scored(
        self, prompt: Sequence[int], answer: Answer, rule: LabelRule, recorder: _LabelRecorder, row: int
    ) -> Answer:
        """The answer with its labels' probabilities, where its label stands in tokens of its own."""
        found = rule.find(answer.text)
        ids = answer.token_ids or ()
        place = None
        if found is not None:
            growing = [self._text(ids[:length]) for length in range(1, len(ids) + 1)]
            place = label_place(answer.text, found.start, token_pieces(answer.text, growing))
        if found is None or place is None:
            return answer
        wanted = {label: self._loaded.text_ids(place.lead + label) for label in rule.labels}
        own = wanted[found.label]
        if tuple(own) != ids[place.token : place.token + len(own)]:
            return answer  # the model wrote the label in other tokens than the tokenizer would
        scores = recorder.probabilities(wanted, step=place.token, row=row)
        if scores is None:
            scores = self._continued([*prompt, *ids[: place.token]], wanted)
        return replace(answer, label_scores=exclusive(scores, wanted))

    def _continued(self, prefix: Sequence[int], wanted: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Probability of each label's tokens after `prefix`, in one pass."""
        import torch

        longest = max(len(ids) for ids in wanted.values())
        # Padding on the right: causal attention keeps it from what stands before.
        rows = [[*prefix, *ids, *[self._loaded.pad_id] * (longest - len(ids))] for ids in wanted.values()]
        with self._loaded.speaking(adapter=self._adapter) as model:
            inputs = torch.tensor(rows, device=model.device)
            logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
            logprobs = torch.log_softmax(logits[:, -longest - 1 : -1].float(), dim=-1)  # [L, longest, V]
        return {
            label: float(sum(logprobs[row, place, token] for place, token in enumerate(ids)).exp())
            for row, (label, ids) in enumerate(wanted.items())
        }


class _LabelRecorder:
    """A logits processor that changes nothing and keeps the probabilities of a few tokens at every step."""

    def __init__(self, columns: Mapping[int, int]) -> None:
        self._columns = columns
        self._steps: list[Any] = []  # one [B, columns] a step

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        del input_ids
        if self._columns:
            normaliser = scores.float().logsumexp(dim=-1, keepdim=True)
            self._steps.append((scores[:, list(self._columns)].float() - normaliser).exp().cpu())
        return scores

    def probabilities(
        self, wanted: Mapping[str, Sequence[int]], *, step: int, row: int
    ) -> dict[str, float] | None:
        """Of labels that are one token each; None where any is more."""
        if any(len(ids) != 1 or ids[0] not in self._columns for ids in wanted.values()):
            return None
        return {label: float(self._steps[step][row, self._columns[ids[0]]]) for label, ids in wanted.items()}


def batches(lengths: Sequence[int], size: int, *, equal: bool) -> list[list[int]]:
    """Indices in batches of at most `size`, longest first; with `equal` no batch mixes lengths."""
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        if not made or len(made[-1]) == size or (equal and lengths[made[-1][0]] != lengths[index]):
            made.append([])
        made[-1].append(index)
    return made
