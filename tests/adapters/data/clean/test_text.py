"""Cleaning of texts, Chinese and English."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.clean.text import clean_text
from adapters.data.example import Example, Message, Origin

ORIGIN = Origin("data.jsonl", 1)


def clean(text: str, **rules: bool) -> str:
    return clean_text([Example(ORIGIN, text=text)], **rules).kept[0].text or ""


CHANGED = {
    # wrong decoding
    "âœ” No problems": "✔ No problems",
    "schÃ¶n, voilÃ  tout": "schön, voilà tout",
    "浣犲ソ，世界": "你好，世界",
    "ÄãºÃ£¬ÊÀ½ç": "你好，世界",
    "ä½\u00a0å¥½ä¸–ç•Œ": "你好世界",
    "\ud83d\ude00 and half \ud83d": "😀 and half \ufffd",
    # invisible and control characters
    "\ufeffpay\u200bment\u00ad due\x00": "payment due",
    "付\u200b款\u2060到期": "付款到期",
    "\x1b[31mred\x1b[0m": "red",
    "left\u202eright": "leftright",
    "a\u200db": "ab",
    "hidden\U000e0041\U000e0042 text": "hidden text",
    # composed form, ligatures of printed pages
    "cafe\u0301 ﬁne": "café fine",
    # entities
    "P&amp;L &lt; 5&nbsp;%": "P&L < 5 %",
    "&#x4f60;&#22909; &ldquo;Hi&rdquo;": "你好 “Hi”",
    "a &amp;amp;lt; b": "a < b",
    "List&lt;String&gt;": "List<String>",
    # tags
    "<p>Hello<br>you</p><p>Bye</p>": "Hello\nyou\n\nBye",
    "<b>bold</b> and <a href='https://x.y'>link</a>": "bold and link",
    "<ul><li>one</li><li>two</li></ul>": "- one\n- two",
    "10<sup>6</sup> H<sub>2</sub>O": "10^6 H2O",
    "<script>alert('<b>')</script>text<!-- note -->": "text",
    '<style type="text/css">p {}</style>正文': "正文",
    "<div class='x'><summary>kept text</summary></div>": "kept text",
    "Write <code>a &lt; b</code> here": "Write `a < b` here",
    "<pre><code>if a &lt; b:\n    x  =  1\n</code></pre>": "```\nif a < b:\n    x  =  1\n```",
    # whitespace
    "  a   b \t \r\n\r\n\r\n\r\nc  ": "a b\n\nc",
    "a\u00a0b\u2009c": "a b c",
    "你好 ，世界 。 再见": "你好，世界。再见",
    "你 好 世 界": "你好世界",
    "我们 今天 去 学校 吃饭 。": "我们今天去学校吃饭。",
    "张三   李四": "张三 李四",
}


@pytest.mark.parametrize(("text", "expected"), CHANGED.items())
def test_what_is_noise_goes(text: str, expected: str) -> None:
    assert clean(text) == expected


UNCHANGED = [
    "if a < b and c > d: pass",
    "a<b>c and Vec<i>",
    "if a <b and c> d",
    "List<Object> <T> Map<String, Long>",
    "<think>\nhm\n</think>\n<answer>5</answer>",
    "<summary>short</summary> <title>x</title>",
    "<s>[INST] <<SYS>> hi </s>",
    "<|im_start|>user <|endoftext|>",
    "Use <br> for a line break in HTML.",
    "网页里的 <p> 标签",
    "&lt;br&gt; is how it looks",
    "AT&T, R&D, x&y; fish&chips",
    "```html\n<p>  a &amp; b  </p>\n\n\n\n<br>\n```",
    "Call `<b>x</b>  &lt;` now",
    "~~~\nx  =  1\n~~~",
    "def f():\n    return 1\n\tx",
    "    first line\n    second line",
    "“quotes” ‘single’ — – … ½ № ² 5 µm",
    "全角，。！？：；（）《》“”１２３ＡＢＣ",
    "张三 李四 王五 赵六 钱七",
    "我用 Python 3 写代码，第 2 行",
    "第一段\n\n　　第二段",
    "👨\u200d👩\u200d👧 ❤️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "می\u200cخواهم",
    "क्\u200dष",
    "\u05d0\u200f!",
    "한국어 문장 입니다",
    "今日は 良い",
]


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_means_something_stays(text: str) -> None:
    assert clean(text) == text


def test_an_answer_that_is_a_page_keeps_its_tags() -> None:
    page = "<div class='nav'><a href='/'>Home</a></div>"
    example = Example(ORIGIN, messages=(Message("user", "Make me a menu"), Message("assistant", page)))
    assert clean_text([example]).kept == (example,)


def test_whitespace_between_a_raw_prompt_and_its_completion_stays() -> None:
    example = Example(ORIGIN, prompt="  Q:  2 + 2?\nA: ", completion=" 4 \n")
    cleaned = clean_text([example]).kept[0]
    assert (cleaned.prompt, cleaned.completion) == ("Q: 2 + 2?\nA: ", " 4")


def test_each_rule_can_be_switched_off() -> None:
    text = "schÃ¶n  <br>&amp;"
    assert clean(text, unicode=False) == "schÃ¶n\n&"
    assert clean(text, html=False) == "schön <br>&amp;"
    assert clean(text, whitespace=False) == "schön  \n&"
    assert clean(text, unicode=False, html=False, whitespace=False) == text


def test_counts_say_how_many_examples_each_rule_touched() -> None:
    texts = ["fine", "a  b", "<br>x", "x\u200b", "x\u200b  y"]
    result = clean_text([Example(ORIGIN, text=text) for text in texts])
    assert result.changed == 4
    assert dict(result.counts) == {"unicode": 2, "html": 1, "whitespace": 3}
    assert len(result.kept) == 5 and not result.removed and not result.flagged


@pytest.mark.parametrize(
    "piece",
    ["<", "<a ", "<b>", "<code>", "<!--", "&amp;", "&lt;br&gt;", "`", "` ", "你 ", "你  ，", "\u200d"],
)
def test_a_long_line_of_one_thing_ends(piece: str) -> None:
    assert clean(piece * 20_000) is not None


_FRAGMENTS = [
    "<p>", "</p>", "<br>", "<b>", "</b>", "<script>", "</script>", "<!--", "-->", "<code>", "</code>", "<pre>",
    "</pre>", "&lt;", "&gt;", "&amp;", "&nbsp;", "amp;", "lt;", "`", "```", "~~~", "\n", " ", "  ", "\t", "\r",
    "\u200b", "\u200d", "\ufeff", "你", "好", "我们", "，", "。", "a", "1", "<", ">", "Ã", "¶", "â€œ", "\x00",
    "\ud83d", "\udc00", "👨", '<div class="x">', "<sup>", "<li>", "\u3000", "\xa0", "e\u0301", "HTML", "&#60;",
    "&#x26;", "浣犲ソ", "ÄãºÃ", "\u202e", "א", "'", '"', "<title>", "</title>", "\ufdd0", "İ",
]  # fmt: skip
_TEXTS = st.lists(st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=3)), max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(_TEXTS, _TEXTS, st.booleans(), st.booleans(), st.booleans())
def test_cleaning_twice_is_cleaning_once(
    ask: str, answer: str, unicode: bool, html: bool, whitespace: bool
) -> None:
    examples = [
        Example(ORIGIN, messages=(Message("user", ask), Message("assistant", answer))),
        Example(ORIGIN, prompt=ask, completion=answer),
        Example(ORIGIN, text=ask + answer),
    ]
    once = clean_text(examples, unicode=unicode, html=html, whitespace=whitespace)
    twice = clean_text(once.kept, unicode=unicode, html=html, whitespace=whitespace)
    assert twice.kept == once.kept
    assert twice.changed == 0


@settings(max_examples=200, deadline=None)
@given(_TEXTS)
def test_code_comes_out_as_it_went_in(text: str) -> None:
    code = "```\n" + text.replace("`", "").replace("\r", "").encode("utf-8", "ignore").decode() + "\n```"
    code = "".join(character for character in code if character not in "\u2028\u2029\x0b\x0c")
    assert code in clean(f"<p>see</p>  {code}\n\n\nend  ")
