"""Characters: text decoded wrongly, controls, invisible characters, and the composed Unicode form."""

from __future__ import annotations

import re
import unicodedata

from adapters.data.clean.code_spans import split_code

_LINE_BREAK = re.compile("\r\n?|[\u2028\u2029\x0b\x0c]")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TERMINAL_ESCAPE = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")

# C0 controls but tab and newline, delete, soft hyphen, zero-width space and word joiner, byte order mark,
# deprecated format characters, interlinear annotation, object replacement, and the last two code points.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffc\ufffe\uffff]"
)
# Direction marks mean something only beside a script written from right to left.
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
# A joiner between emoji makes one picture of two; after letters of Arabic, Indic and Mongolian scripts it
# shapes them. Anywhere else it is invisible noise.
_JOINING = "\u0600-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ua840-\ua8ff"
_EMOJI = "\u00a9\u00ae\u203c-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff\U000e007f"
_STRAY_JOINER = re.compile(
    f"(?<![{_JOINING}])\u200c|(?<![{_JOINING}{_EMOJI}])\u200d|(?<=[{_EMOJI}])\u200d(?![{_EMOJI}])"
)
# Tag characters spell the flags of England, Scotland and Wales after a black flag; alone they are hidden text.
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]+")

# Runs that could be UTF-8 read as GBK, and GBK read as Latin-1.
_HAN_RUN = re.compile("[\u3041-\u30ff\u4e00-\u9fff\ue000-\uf8ff\u20ac]{3,}")
_LATIN_RUN = re.compile("(?:[\u00a1-\u00a3\u00b0-\u00d7][\u00a1-\u00fe]){2,}")
_EAST_ASIAN = re.compile("[\u2014-\u2026\u3000-\u30ff\u4e00-\u9fff\uff01-\uff60]+")
# The fifty commonest characters of Chinese text, a third of any page of it.
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年好"
)


def clean_characters(text: str) -> str:
    """Mend wrong decoding, drop control and invisible characters, compose (NFC). Code keeps its characters.

    Widths, quotes and full-width punctuation stay: they are what Chinese and typographic text is made of.
    Line endings become newlines and lone surrogates U+FFFD in code too, since no tokenizer can take them.
    """
    text = _LINE_BREAK.sub("\n", text) if not text.isprintable() else text
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _mend_surrogates(text)
    return "".join(piece if is_code else _clean_prose(piece) for is_code, piece in split_code(text))


def _clean_prose(text: str) -> str:
    text = _TERMINAL_ESCAPE.sub("", text)
    if not text.isascii():
        text = "\n".join(_mend_line(line) for line in text.split("\n"))
        if not _RIGHT_TO_LEFT.search(text):
            text = _DIRECTION.sub("", text)
        text = _TAGS.sub(r"\1", text)
    text = _UNWANTED.sub("", text)
    return unicodedata.normalize("NFC", _STRAY_JOINER.sub("", text))


def _mend_surrogates(text: str) -> str:
    """Pairs become the character they stand for, lone halves U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    paired = _SURROGATE_PAIR.sub(lambda m: m.group().encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _SURROGATE.sub("\ufffd", paired)


def _mend_line(line: str) -> str:
    """One line with wrong decodings reversed where the evidence is strong."""
    import ftfy

    if line.isascii():
        return line
    line = _LATIN_RUN.sub(_gbk_read_as_latin1, line)
    line = _HAN_RUN.sub(_utf8_read_as_gbk, line)
    # fix_text and fix_encoding drop their configuration (ftfy 6.3.1: it is honoured only when an explanation
    # is asked for), so the explaining function is called.
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_surrogates=False,
        normalization="NFC",
        explain=True,
    )
    return ftfy.fix_and_explain(line, config).text


def _utf8_read_as_gbk(run: re.Match[str]) -> str:
    """`浣犲ソ` -> `你好`. Real Chinese in GBK is never well-formed UTF-8 over three characters and more."""
    try:
        mended = run.group().encode("gb18030").decode("utf-8")
    except UnicodeError:
        return run.group()
    return mended if _EAST_ASIAN.fullmatch(mended) else run.group()


def _gbk_read_as_latin1(run: re.Match[str]) -> str:
    """`ÄãºÃ` -> `你好`, if every character is a common one of GB 2312 and one of them is very common."""
    try:
        mended = run.group().encode("latin-1").decode("gb2312")
    except UnicodeError:
        return run.group()
    return mended if _COMMON_HAN.intersection(mended) else run.group()
