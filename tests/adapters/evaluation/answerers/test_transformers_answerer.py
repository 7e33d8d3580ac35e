"""Answers of a tiny random base: batches, adapters, label probabilities and likelihoods against plain calls."""

from __future__ import annotations

import json
import math
import shutil
import string
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from adapters.data.encode import ExampleEncoder
from adapters.data.example import Example, Origin
from adapters.errors import EvaluationError
from adapters.evaluation.answerers.answerer import quiet
from adapters.evaluation.answerers.transformers_answerer import TransformersAnswerer, batches
from adapters.evaluation.answerers.transformers_model import LoadedModel, load_model
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question, question_of
from bases.tiny import make_tiny_base
from tests.adapters.evaluation.conftest import chat

NEW_TOKENS = 10
EXAMPLES = [
    chat("What is the capital of France?", "Paris.", system="Answer in one sentence."),
    chat("Is the sun a star?", "Yes, the sun is a star."),
    chat("Say <|im_end|> to me", "I would rather not."),
    Example(Origin("test.jsonl", 4), prompt="The weather today is", completion=" cold and windy"),
    chat("理由是什么？", "深夜。"),
]
# Every letter is a label, so that a random answer has one.
LETTERS = LabelRule("([a-z])", tuple(string.ascii_lowercase), ordinal=False)


@pytest.fixture(scope="module")
def loaded(tiny_base: Path, tiny_adapter: Path) -> LoadedModel:
    return load_model(tiny_base, tiny_adapter, precision="auto")


def answerer(loaded: LoadedModel, *, adapter: bool = True, batch_size: int = 4) -> TransformersAnswerer:
    return TransformersAnswerer(
        loaded, adapter=adapter, name="tiny", max_new_tokens=NEW_TOKENS, batch_size=batch_size
    )


def questions() -> list[Question]:
    return [question for question in map(question_of, EXAMPLES) if question is not None]


def greedy(model, prompt: list[int]) -> list[int]:
    """Greedy tokens, one full pass each."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_padded_batch_answers_as_single_prompts_do(loaded):
    together = answerer(loaded, batch_size=5).answer(questions(), rule=None, progress=quiet)
    alone = answerer(loaded, batch_size=1).answer(questions(), rule=None, progress=quiet)
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert len({each.text for each in together}) > 1


def test_base_and_adapter_answer_as_transformers_and_peft_do(loaded, tiny_base, tiny_adapter):
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    encoder = ExampleEncoder(tiny_base, max_length_tokens=512)
    prompts = [encoder.encode_prompt(example) for example in EXAMPLES]
    of_base = answerer(loaded, adapter=False).answer(questions(), rule=None, progress=quiet)
    assert [list(each.token_ids or ()) for each in of_base] == [greedy(base, prompt) for prompt in prompts]
    adapted = PeftModel.from_pretrained(base, str(tiny_adapter)).eval()
    of_adapter = answerer(loaded).answer(questions(), rule=None, progress=quiet)
    assert [list(each.token_ids or ()) for each in of_adapter] == [
        greedy(adapted, prompt) for prompt in prompts
    ]
    assert of_base[0].text != of_adapter[0].text


def test_an_end_token_ends_the_answer_and_is_no_part_of_its_text(loaded):
    question = questions()[:1]
    (whole,) = answerer(loaded).answer(question, rule=None, progress=quiet)
    ids = list(whole.token_ids or ())
    end = next(place for place in range(2, len(ids)) if ids[place] not in ids[:place])
    (ended,) = answerer(replace(loaded, end_ids=frozenset({ids[end]}))).answer(
        question, rule=None, progress=quiet
    )
    assert (whole.finish_reason, ended.finish_reason) == ("length", "stop")
    assert ended.token_ids == tuple(ids[: end + 1])
    assert ended.num_tokens == end + 1
    assert whole.text.startswith(ended.text)
    assert ended.text == loaded.tokenizer.decode(ids[:end])


def test_progress_counts_up_to_all_questions(loaded):
    seen: list[tuple[int, int]] = []
    answerer(loaded, batch_size=2).answer(questions(), rule=None, progress=lambda *step: seen.append(step))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_label_scores_are_the_probabilities_where_the_label_stands(loaded):
    answers = answerer(loaded, adapter=False).answer(questions(), rule=LETTERS, progress=quiet)
    checked = 0
    encoder = ExampleEncoder(loaded.base_folder, max_length_tokens=512)
    for example, answer in zip(EXAMPLES, answers, strict=True):
        if answer.label_scores is None:
            continue
        found = LETTERS.find(answer.text)
        assert found is not None
        ids = list(answer.token_ids or ())
        place = next(k for k in range(len(ids)) if len(loaded.tokenizer.decode(ids[: k + 1])) > found.start)
        prefix = [*encoder.encode_prompt(example), *ids[:place]]
        with loaded.speaking(adapter=False) as model:
            truth = model(input_ids=torch.tensor([prefix])).logits[0, -1].softmax(-1)
        assert answer.label_scores[found.label] == pytest.approx(float(truth[ids[place]]), rel=1e-4)
        assert max(answer.label_scores, key=answer.label_scores.__getitem__) == found.label
        assert sum(answer.label_scores.values()) <= 1 + 1e-6
        checked += 1
    assert checked > 0


def test_labels_of_several_tokens_are_scored_in_a_pass_of_their_own(loaded):
    rule = replace(LETTERS, labels=(*LETTERS.labels, "zxqzxq"))
    single = answerer(loaded).answer(questions(), rule=LETTERS, progress=quiet)
    several = answerer(loaded).answer(questions(), rule=rule, progress=quiet)
    checked = 0
    for left, right in zip(single, several, strict=True):
        assert (left.label_scores is None) == (right.label_scores is None)
        if left.label_scores is not None and right.label_scores is not None:
            assert 0 < right.label_scores["zxqzxq"] < 1e-3
            same = {label: right.label_scores[label] for label in LETTERS.labels}
            assert same == pytest.approx(dict(left.label_scores), abs=1e-4)
            checked += 1
    assert checked > 0


def test_likelihoods_are_those_of_one_plain_pass(loaded):
    found = answerer(loaded).likelihoods(EXAMPLES, progress=quiet)
    assert isinstance(found, list)
    encoder = ExampleEncoder(loaded.base_folder, max_length_tokens=512)
    for example, likelihood in zip(EXAMPLES, found, strict=True):
        (encoded,) = encoder.encode(example)
        ids = torch.tensor([encoded.input_ids])
        labels = ids.masked_fill(~torch.tensor([encoded.supervised]), -100)
        with loaded.speaking(adapter=True) as model:
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert likelihood.num_tokens == encoded.num_supervised
        assert likelihood.nats == pytest.approx(loss * likelihood.num_tokens, rel=1e-4)


def test_a_prefix_tuned_adapter_is_evaluated_too(tiny_base, tmp_path):
    torch.manual_seed(0)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config)
    model.save_pretrained(tmp_path / "prefix")
    loaded = load_model(tiny_base, tmp_path / "prefix", precision="float32")
    assert loaded.prompt_learning
    together = answerer(loaded, batch_size=8).answer(questions() * 2, rule=None, progress=quiet)
    alone = answerer(loaded, batch_size=1).answer(questions() * 2, rule=None, progress=quiet)
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    of_base = answerer(loaded, adapter=False).answer(questions(), rule=None, progress=quiet)
    assert [each.text for each in of_base] != [each.text for each in alone[:5]]
    adapted, plain = (
        answerer(loaded, adapter=speaks).likelihoods(EXAMPLES, progress=quiet) for speaks in (True, False)
    )
    assert isinstance(adapted, list)
    assert isinstance(plain, list)
    assert adapted[0].num_tokens == plain[0].num_tokens
    assert not math.isclose(adapted[0].nats, plain[0].nats, rel_tol=1e-3)


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(loaded):
    long = question_of(chat("word " * 600, "no"))
    assert long is not None
    with pytest.raises(EvaluationError, match="context of 512 tokens"):
        answerer(loaded).answer([long], rule=None, progress=quiet)


def test_a_folder_that_is_no_adapter_is_refused(tiny_base, tiny_adapter, tmp_path):
    with pytest.raises(EvaluationError, match="there is no adapter folder"):
        load_model(tiny_base, tmp_path / "none", precision="auto")
    shutil.copytree(tiny_adapter, tmp_path / "half")
    (tmp_path / "half" / "adapter_model.safetensors").unlink()
    with pytest.raises(EvaluationError, match=r"has no adapter_model\.safetensors"):
        load_model(tiny_base, tmp_path / "half", precision="auto")


def test_an_adapter_of_another_base_is_refused(tiny_adapter, tmp_path):
    wider = make_tiny_base(tmp_path / "wider", hidden_size=256)
    with pytest.raises(EvaluationError, match="'moved' does not fit this base"):
        load_model(wider, tiny_adapter, precision="auto")


def test_an_adapter_that_would_do_nothing_is_refused(tiny_base, tiny_adapter, tmp_path):
    shutil.copytree(tiny_adapter, tmp_path / "renamed")
    path = tmp_path / "renamed" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"target_modules": ["q_proj", "v_proj", "o_proj"]}))
    with pytest.raises(EvaluationError, match="lacks weights that its configuration names"):
        load_model(tiny_base, tmp_path / "renamed", precision="auto")


def test_batches_are_longest_first_and_mix_lengths_only_where_they_may():
    assert batches([3, 9, 3, 5], 2, equal=False) == [[1, 3], [0, 2]]
    assert batches([3, 9, 3, 5], 2, equal=True) == [[1], [3], [0, 2]]
    assert batches([], 2, equal=False) == []
