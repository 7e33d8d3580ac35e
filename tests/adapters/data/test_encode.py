"""Examples to tokens: the gateway's prompt, then what the engine has to generate, and nothing else is learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.encode import EncodedExample, ExampleEncoder, encode_all
from adapters.data.example import Example, Message, Origin
from adapters.errors import DataError
from bases.codec import TokenizerCodec
from bases.errors import BaseInvalidError
from bases.tiny import make_tiny_base

ORIGIN = Origin("notes.jsonl", 3)
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
GENERATE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
TEMPLATES = {
    # SmolLM2's, which puts a system message where there is none
    "default_system": (
        "{% for m in messages %}{% if loop.first and messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}{% endif %}"
        + TURN
        + "{% endfor %}"
        + GENERATE
    ),
    # DeepSeek-R1's distillations: the generation prompt opens the thinking, and past thinking is removed
    "thinking": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% set c = m.content %}"
        "{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
        "{{ '<|im_start|>assistant\\n' + c + '<|im_end|>' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    ),
    # Qwen3's: an answer without thinking gets an empty one, which the engine has to generate
    "empty_thought": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}" + GENERATE
    ),
    "trims": "{% for m in messages %}"
    + TURN.replace("m.content", "m.content | trim")
    + "{% endfor %}"
    + GENERATE,
    # Llama 2's: no space after the prompt, one before the answer
    "space_before": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' <|im_end|>' }}"
        "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
    ),
    "no_end": "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
}

MakeEncoder = Callable[..., ExampleEncoder]


@dataclass(frozen=True)
class Bases:
    """Copies of a tiny base with another template or other end tokens."""

    folder: Path
    tiny: dict[str, Path]

    def make(self, template: str = "plain", *, eos: Any = 2, architecture: str = "llama") -> Path:
        copy = self.folder / f"{architecture}-{template}-{json.dumps(eos)}"
        if not copy.exists():
            shutil.copytree(self.tiny[architecture], copy)
            if template != "plain":
                (copy / "chat_template.jinja").write_text(TEMPLATES[template], encoding="utf-8")
            if eos != 2:
                (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
                config = json.loads((copy / "tokenizer_config.json").read_text())
                config["eos_token"] = None if eos is None else PAD
                (copy / "tokenizer_config.json").write_text(json.dumps(config))
        return copy


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    folder = tmp_path_factory.mktemp("encode")
    tiny = {name: make_tiny_base(folder / name, architecture=name) for name in ("llama", "qwen2")}
    return Bases(folder, tiny)


@pytest.fixture(scope="module")
def encoders(bases: Bases) -> MakeEncoder:
    made: dict[tuple[Any, ...], ExampleEncoder] = {}

    def make(template: str = "plain", architecture: str = "llama", eos: Any = 2) -> ExampleEncoder:
        key = (template, architecture, json.dumps(eos))
        if key not in made:
            made[key] = ExampleEncoder(
                bases.make(template, eos=eos, architecture=architecture), max_length_tokens=100_000
            )
        return made[key]

    return make


def chat(*turns: str, system: str | None = None) -> Example:
    """Turns of the user and the assistant in alternation."""
    messages = [Message("system", system)] if system is not None else []
    messages += [Message(("user", "assistant")[index % 2], text) for index, text in enumerate(turns)]
    return Example(origin=ORIGIN, messages=tuple(messages), task="risk")


def learned(encoder: ExampleEncoder, example: EncodedExample) -> str:
    return encoder.decode(i for i, s in zip(example.input_ids, example.supervised, strict=True) if s)


def control_ids(encoder: ExampleEncoder) -> set[int]:
    return set(encoder.tokenizer.convert_tokens_to_ids([START, END, PAD]))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_sequence_is_the_gateways_prompt_then_the_answer_and_its_end(
    encoders: MakeEncoder, architecture: str
) -> None:
    encoder = encoders(architecture=architecture)
    example = chat("What is the capital of France?", "Paris.", system="Be brief.")
    (encoded,) = encoder.encode(example)
    messages = [{"role": m.role, "content": m.content} for m in example.messages[:-1]]
    prompt = TokenizerCodec(encoder.tokenizer).encode_chat(messages)
    assert encoder.encode_prompt(example) == prompt
    assert list(encoded.input_ids[: len(prompt)]) == prompt
    assert encoded.supervised == (False,) * len(prompt) + (True,) * (len(encoded.input_ids) - len(prompt))
    assert learned(encoder, encoded) == f"Paris.{END}"
    assert encoded.input_ids[-1] in encoder.end_token_ids
    assert (encoded.task, encoded.origin) == ("risk", ORIGIN)


def test_a_default_system_message_is_part_of_the_prompt(encoders: MakeEncoder) -> None:
    encoder = encoders("default_system")
    (encoded,) = encoder.encode(chat("hi", "hello"))
    assert encoder.decode(encoded.input_ids) == (
        f"{START}system\nYou are kind.{END}\n{START}user\nhi{END}\n{START}assistant\nhello{END}"
    )


def test_each_turn_is_learned_in_one_sequence_where_the_past_reads_as_it_was_asked(
    encoders: MakeEncoder,
) -> None:
    encoder = encoders()
    (encoded,) = encoder.encode(chat("one", "first", "two", "second", "three"))
    assert learned(encoder, encoded) == f"first{END}second{END}"
    assert encoder.decode(encoded.input_ids).endswith(f"second{END}")  # nobody answers the last question


def test_the_thinking_that_the_generation_prompt_opens_is_not_opened_twice(encoders: MakeEncoder) -> None:
    encoder = encoders("thinking")
    (encoded,) = encoder.encode(chat("2+2?", "<think>\nEasy.\n</think>\n\n4"))
    assert learned(encoder, encoded) == f"Easy.\n</think>\n\n4{END}"
    assert encoder.decode(encoded.input_ids).count("<think>") == 1
    assert "'</think>'" in encoder.warnings()[0]


def test_turns_whose_past_is_rewritten_become_sequences_of_their_own(encoders: MakeEncoder) -> None:
    encoder = encoders("thinking")
    first, second = encoder.encode(chat("2+2?", "Easy.</think>4", "3+3?", "Too.</think>6"))
    assert learned(encoder, first) == f"Easy.</think>4{END}"
    assert learned(encoder, second) == f"Too.</think>6{END}"
    assert "Easy" not in encoder.decode(second.input_ids)  # as the gateway's prompt has it


def test_text_that_the_template_puts_before_an_answer_is_learned(encoders: MakeEncoder) -> None:
    (encoded,) = encoders("empty_thought").encode(chat("2+2?", "4"))
    assert learned(encoders("empty_thought"), encoded) == f"<think>\n\n</think>\n\n4{END}"
    (own,) = encoders("empty_thought").encode(chat("2+2?", "<think>Easy.</think>4"))
    assert learned(encoders("empty_thought"), own) == f"<think>Easy.</think>4{END}"
    (spaced,) = encoders("space_before").encode(chat("2+2?", "4"))
    assert learned(encoders("space_before"), spaced) == f" 4 {END}"


def test_a_template_that_trims_answers_has_trimmed_ones_learned(encoders: MakeEncoder) -> None:
    (trimmed,) = encoders("trims").encode(chat("2+2?", "\n 4 \n"))
    assert learned(encoders("trims"), trimmed) == f"4{END}"
    (kept,) = encoders().encode(chat("2+2?", "\n 4 \n"))
    assert learned(encoders(), kept) == f"\n 4 \n{END}"


def test_a_turn_without_an_end_token_is_refused(encoders: MakeEncoder) -> None:
    with pytest.raises(
        DataError, match=r"^notes.jsonl:3: .*writes '\\n' after.*'<\|im_end\|>'.*chat_template"
    ):
        encoders("no_end").encode(chat("hi", "hello"))
    with pytest.raises(DataError, match="stops at: none"):
        encoders(eos=None).encode(chat("hi", "hello"))


def test_an_end_that_the_engine_does_not_know_is_followed_by_one_it_does(encoders: MakeEncoder) -> None:
    encoder = encoders(eos=[0])
    (encoded,) = encoder.encode(chat("hi", "hello"))
    assert learned(encoder, encoded) == f"hello{END}{PAD}"
    assert "'<|im_end|>', at which the engine does not stop" in encoder.warnings()[0]
    assert [learned(encoder, e) for e in encoder.encode(chat("a", "b", "c", "d"))] == [
        f"b{END}{PAD}",
        f"d{END}{PAD}",
    ]


def test_an_end_named_only_by_the_generation_config_is_enough(encoders: MakeEncoder) -> None:
    encoder = encoders(eos=[0, 2])
    (encoded,) = encoder.encode(chat("hi", "hello"))
    assert learned(encoder, encoded) == f"hello{END}"
    assert encoder.end_token_ids == {0, 2} and encoder.warnings() == ()


def test_a_completion_follows_the_raw_prompt(encoders: MakeEncoder) -> None:
    encoder = encoders()
    example = Example(origin=ORIGIN, prompt="Once upon", completion=" a time")
    (encoded,) = encoder.encode(example)
    assert encoder.decode(encoded.input_ids) == f"Once upon a time{END}"
    assert learned(encoder, encoded) == f" a time{END}"
    assert encoder.encode_prompt(example) == TokenizerCodec(encoder.tokenizer).encode(
        "Once upon", parse_special=False
    )


def test_all_of_a_text_is_learned(encoders: MakeEncoder) -> None:
    encoder = encoders()
    (encoded,) = encoder.encode(Example(origin=ORIGIN, text=f"Once {END} upon"))
    assert encoder.decode(encoded.input_ids) == f"Once {END} upon{END}"
    assert all(encoded.supervised) and encoded.num_supervised == len(encoded.input_ids) - 1
    assert encoded.input_ids.count(2) == 1


TEXT = st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=30)
HOSTILE = st.lists(
    st.sampled_from([START, END, PAD, "<|im", "_end|>", "assistant\n", "a", " ", "\n", "é", "🔑", "\ue0f0"]),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(TEXT | HOSTILE, TEXT | HOSTILE), min_size=1, max_size=3))
def test_whatever_the_texts_hold_the_answer_is_learned_as_text_and_the_prompt_is_the_gateways(
    encoders: MakeEncoder, turns: list[tuple[str, str]]
) -> None:
    encoder = encoders()
    example = chat(*(text for turn in turns for text in turn))
    sequences = encoder.encode(example)
    assert "".join(learned(encoder, e) for e in sequences) == "".join(answer + END for _, answer in turns)
    control = control_ids(encoder)
    for sequence in sequences:
        spans = list(zip(sequence.input_ids, sequence.supervised, strict=True))
        # The only control token that is learned is the end of a turn, and there is one for each.
        assert [i for i, s in spans if s and i in control] == [2] * sum(s and i == 2 for i, s in spans)
    assert sum(i == 2 for e in sequences for i, s in zip(e.input_ids, e.supervised, strict=True) if s) == len(
        turns
    )
    prompt = encoder.encode_prompt(example)
    assert list(sequences[-1].input_ids[: len(prompt)]) == prompt
    assert encoder.decode(sequences[-1].input_ids[len(prompt) :]) == turns[-1][1] + END


@settings(deadline=None, max_examples=40)
@given(HOSTILE | TEXT, HOSTILE | TEXT)
def test_many_at_a_time_are_encoded_as_one_by_one(encoders: MakeEncoder, first: str, second: str) -> None:
    encoder = encoders("default_system")
    examples = [
        chat(first, second),
        Example(origin=ORIGIN, prompt=first, completion=second),
        Example(origin=ORIGIN, text=first + second),
        chat(second, first, second, first, system=first),
    ]
    together = encode_all(examples, encoder)
    assert list(together.examples) == [e for example in examples for e in encoder.encode(example)]


def test_long_sequences_are_dropped_and_named(bases: Bases) -> None:
    encoder = ExampleEncoder(bases.make(), max_length_tokens=24)
    encoded = encode_all([chat("hi", "hello"), chat("hi", "The cat sat on the mat. " * 9)], encoder)
    assert (len(encoded.examples), encoded.num_dropped, encoded.num_truncated) == (1, 1, 0)
    assert "more than 24: dropped" in encoded.findings[0].reason
    assert encoded.findings[0].example.answer.startswith("The cat")


def test_truncation_takes_the_answers_end_and_drops_what_has_no_answer_left(bases: Bases) -> None:
    encoder = ExampleEncoder(bases.make(), max_length_tokens=24, on_long="truncate")
    long = "The cat sat on the mat. " * 9
    encoded = encode_all([chat("hi", long), chat(long, "hello")], encoder)
    assert (len(encoded.examples), encoded.num_dropped, encoded.num_truncated) == (1, 1, 1)
    (cut,) = encoded.examples
    assert len(cut.input_ids) == 24 and long.startswith(learned(encoder, cut))
    assert cut.input_ids[-1] not in encoder.end_token_ids


def test_nothing_and_everything_learned_are_refused(bases: Bases, encoders: MakeEncoder) -> None:
    short = ExampleEncoder(bases.make(), max_length_tokens=4)
    with pytest.raises(DataError, match=r"notes.jsonl:3: 0 %.* 1 of 1 are longer than 4 tokens"):
        encode_all([chat("hi", "hello")], short)
    with pytest.raises(DataError, match="no examples"):
        encode_all([], short)
    with pytest.raises(DataError, match=r"100 % of the \d+ tokens"):
        encode_all([Example(origin=ORIGIN, prompt="", completion="all of it")], encoders())
    with pytest.raises(DataError, match=r"0 %.*no example has an answer"):
        encode_all([Example(origin=ORIGIN, text="")], encoders())
    assert encode_all([Example(origin=ORIGIN, text="all of it")], encoders()).examples


def test_a_conversation_without_an_answer_and_a_base_without_a_template_are_named(
    bases: Bases, encoders: MakeEncoder, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"^notes.jsonl:3: no message is the assistant's"):
        encoders().encode(chat("hi"))
    bare = Path(shutil.copytree(bases.make(), tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match=r"^notes.jsonl:3: .*no chat template"):
        ExampleEncoder(bare, max_length_tokens=99).encode(chat("hi", "hello"))
    (bare / "tokenizer.json").unlink()
    with pytest.raises(BaseInvalidError, match="no fast tokenizer"):
        ExampleEncoder(bare, max_length_tokens=99)


def test_a_tokenizer_that_invents_a_space_before_text_does_not_do_so_before_an_answer(
    bases: Bases, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    base = Path(shutil.copytree(bases.make(), tmp_path / "llama2"))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    words = [
        "▁",
        "▁hi",
        "▁hello",
        "hello",
        ".",
        "\n",
        "x",
        "a",
        ":",
        "▁user",
        "▁assistant",
        "user",
        "assistant",
    ]
    vocab = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    vocab |= {word: len(vocab) + index for index, word in enumerate(words)}
    built = Tokenizer.from_str(
        json.dumps(
            {**tokenizer, "model": {"type": "Unigram", "unk_id": 0, "vocab": [[w, -1.0] for w in vocab]}}
        )
    )
    built.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    built.pre_tokenizer = pre_tokenizers.Split("\n", behavior="isolated")
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    built.save(str(base / "tokenizer.json"))
    encoder = ExampleEncoder(base, max_length_tokens=99)
    (encoded,) = encoder.encode(chat("hi", "hello"))
    answer = [i for i, s in zip(encoded.input_ids, encoded.supervised, strict=True) if s]
    assert encoder.tokenizer.convert_ids_to_tokens(answer) == ["hello", END]


def test_a_tool_call_in_an_answer_is_the_token_that_the_engine_generates(
    bases: Bases, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(bases.make(), tmp_path / "tools"))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": 512, "content": "<tool_call>", "special": False}
    )
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with (base / "chat_template.jinja").open("a", encoding="utf-8") as file:
        file.write("{% if tools %}Answer in <tool_call>{% endif %}")
    encoder = ExampleEncoder(base, max_length_tokens=999)
    (encoded,) = encoder.encode(chat("hi", f"<tool_call>{END}now"))
    answer = [i for i, s in zip(encoded.input_ids, encoded.supervised, strict=True) if s]
    assert answer[0] == 512 and answer.count(2) == 1 and answer[-1] == 2
    assert learned(encoder, encoded) == f"<tool_call>{END}now{END}"
