"""The tokenizers and chat templates of tiny bases: byte-level BPE over a page of text, so any text round-trips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Chat = Literal["chatml", "r1"]

TINY_VOCAB_SIZE = 512
TINY_CONTEXT_TOKENS = 512
# Qwen2's splitting of text into pieces: https://huggingface.co/Qwen/Qwen2-0.5B/blob/main/tokenizer.json
_QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# The template of DeepSeek-R1 and its distillations without its tools: the system text stands bare in front, earlier
# answers lose their reasoning, and the model's turn begins inside <think>. See chat_template in
# https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B/blob/main/tokenizer_config.json
_R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{ bos_token }}{{ ns.system_prompt }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}"
    "{%- endif %}"
    "{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
_CORPUS = """
A base model is large and learns slowly; an adapter is small and learns one thing. The server keeps one base
in memory and many adapters beside it, and each request says which adapter shall answer. When a new version
of an adapter arrives, the server loads it, asks it a few questions, and moves the name to it in one step.
Requests that are already running finish with the version they began with. Nobody has to wait, and nobody
gets a wrong answer. What is the capital of France? The capital of France is Paris. What is the capital of
Germany? The capital of Germany is Berlin. How many legs does a spider have? A spider has eight legs. Is the
sun a star? Yes, the sun is a star, and the earth moves around it once a year. Please write a short story
about a dog and a cat. Once upon a time there was a dog who lived in a house by the sea. Every morning the
dog went to the beach, and every evening the dog came home. One day a cat was sitting at the door. "Hello,"
said the cat, "may I come in?" The dog thought about it for a while and said, "Yes, but do not sleep in my
bed." They became good friends and lived together. You are a helpful assistant. Answer the question in one
sentence. Give the answer as a JSON object with the keys name, age and city. Write a function in Python that
adds two numbers and returns the sum:
def add(first, second):
    return first + second
for number in range(10):
    print(number, add(number, 1))
I would like to order a large coffee with milk, a small tea with lemon, and two pieces of cake. The total is
12.50 euros; thank you for your order. The weather today is cold and windy, with some rain in the north and
sunshine in the south. The train to the city leaves at nine in the morning and arrives at half past eleven.
The customer writes that the product was delivered late and that the box was open. The risk of this contract
is low, because both parties have agreed to the terms and the payment has been made. The patient should take
this medicine three times a day after eating. A good test says what should happen, makes it happen, and
fails when it does not. These are the words from which a small tokenizer learns its pieces, such as the,
and, ing, tion, ment, able, with and there.
"""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a family writes a conversation; `marks` are added tokens that are not special, as DeepSeek has them."""

    template: str
    pad: str
    bos: str
    eos: str
    marks: tuple[str, ...] = ()
    bos_in_front: bool = False  # of whatever is encoded with special tokens

    @property
    def special(self) -> list[str]:
        """The special tokens in the order of their ids."""
        return list(dict.fromkeys((self.pad, self.bos, self.eos)))


CHAT_FORMATS: dict[Chat, ChatFormat] = {
    "chatml": ChatFormat(_CHATML, pad="<|endoftext|>", bos="<|im_start|>", eos="<|im_end|>"),
    "r1": ChatFormat(
        _R1,
        pad="<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        marks=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        bos_in_front=True,
    ),
}


def train_tokenizer(architecture: str, chat: ChatFormat) -> Tokenizer:
    """A tokenizer of TINY_VOCAB_SIZE tokens: unknown words fall into bytes."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    if architecture == "qwen2":
        # transformers puts these rules in whatever tokenizer.json says, so they must be there from the start.
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2_PIECES), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCAB_SIZE - len(chat.marks),
        special_tokens=chat.special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in chat.marks])
    if chat.bos_in_front:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{chat.bos} $A",
            pair=f"{chat.bos} $A {chat.bos} $B",
            special_tokens=[(chat.bos, tokenizer.token_to_id(chat.bos))],
        )
    return tokenizer


def special_ids(tokenizer: Tokenizer, chat: ChatFormat) -> dict[str, Any]:
    """The ids that config.json and generation_config.json name."""
    return {
        "bos_token_id": tokenizer.token_to_id(chat.bos),
        "eos_token_id": tokenizer.token_to_id(chat.eos),
        "pad_token_id": tokenizer.token_to_id(chat.pad),
    }


def tokenizer_config(architecture: str, chat: ChatFormat) -> dict[str, Any]:
    """Content of tokenizer_config.json."""
    config = {
        "add_prefix_space": False,
        "bos_token": chat.bos,
        "clean_up_tokenization_spaces": False,
        "eos_token": chat.eos,
        "model_max_length": TINY_CONTEXT_TOKENS,
        "pad_token": chat.pad,
        "tokenizer_class": "Qwen2Tokenizer" if architecture == "qwen2" else "PreTrainedTokenizerFast",
    }
    if chat.bos_in_front:
        config |= {"add_bos_token": True, "add_eos_token": False, "unk_token": None}
    return config
