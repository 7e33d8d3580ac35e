"""Telephone numbers in running text, told from amounts, dates and order numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from adapters.data.clean.identifiers import Match
from adapters.errors import DataError

DEFAULT_REGIONS = ("CN", "US", "GB", "DE")

# Seven digits and more with the signs that a number may be written with: the matcher is asked only there.
_CANDIDATE = re.compile(
    r"(?<![\w.,])[+＋(（]?\d(?:[ \t().\-/–（）\u00a0\u2011]{0,3}\d){6,16}(?![\w])", re.ASCII
)
_INTRODUCTION = re.compile(
    r"(?:\b(?:tel|telephone|phone|call|mobile|cell|fax|whatsapp|telefon|tel\.?nr|handy|mobil|ring|text|dial|sms)\b"
    r"|电话|手机|致电|拨打|座机|热线|传真|微信|联系方式|号码|短信)[^\d\n]{0,24}\Z",
    re.IGNORECASE,
)
_OTHER_NUMBER = re.compile(
    r"(?:\b(?:order|invoice|ref(?:erence)?|id|no|nr|isbn|issn|account|acct|case|ticket|version|ip|serial|sku|policy"
    r"|transaction|txn|tracking|bestellung|rechnung|konto|timestamp|iban|uuid|code)\b|订单|单号|编号|账号|账户|卡号|流水|发票|快递"
    r"|\bamount|金额|[€$£¥￥#])[^\d\n,，;；]{0,12}\Z",
    re.IGNORECASE,
)
_CURRENCY_AFTER = re.compile(
    r"[ \u00a0]?(?:EUR|USD|GBP|CNY|RMB|CHF|JPY|€|\$|£|¥|元|块|万|亿|%|人民币|美元|欧元)"
)
_CHINESE_MOBILE = re.compile(r"1[3-9]\d(?:[ -]?\d{4}){2}")
_DATE = re.compile(r"(?:19|20)\d\d[-/. ]?[01]\d[-/. ]?[0-3]\d|[0-3]?\d[-/.][01]?\d[-/.](?:19|20)\d\d")
_GAP = re.compile(r"(?<=\d)[ \t\u00a0]+(?=[+＋(（\d])")
_SEPARATED = re.compile(r"\d[ \t().\-/\u00a0]+\d")


def find_phones(text: str, regions: Sequence[str] = DEFAULT_REGIONS) -> Iterator[Match]:
    """Numbers that are valid by their country's plan and are written like a telephone number.

    With a country code (`+49 ...`, `0049 ...`) that is enough. Without one, a Chinese mobile number is taken as
    it is; others need to be grouped as their country groups them with an area code (`(212) 456-7890`,
    `020 7946 0958`), or an introduction such as `tel`, `call`, `电话`. A number introduced as something else
    (order, invoice, 订单), dates, and amounts of money are none.

    Raises:
        DataError: a region is no country with a numbering plan.
    """
    from phonenumbers import SUPPORTED_REGIONS

    for region in regions:
        if region not in SUPPORTED_REGIONS:
            raise DataError(
                f"The region {region!r} for telephone numbers is unknown; give ISO codes such as CN or DE."
            )
    position = 0
    rest = -1  # where the rest of a refused candidate starts
    while (candidate := _CANDIDATE.search(text, position)) is not None:
        start, end = candidate.span()
        gaps = list(_GAP.finditer(text, start, end))
        # Another number or a time may stand right before or behind (`14:30 13812345678`): the candidate is
        # tried whole, then without its last groups, then from its next group.
        ends = [end, *(gap.start() for gap in reversed(gaps))]
        tries = (_find(text, start, e, regions, is_part=start == rest or e < end) for e in ends)
        found = next((match for match in tries if match is not None), None)
        if found is not None:
            yield found
        position = found.end if found else gaps[0].end() if gaps else end
        rest = -1 if found else position


def _find(text: str, start: int, end: int, regions: Sequence[str], *, is_part: bool) -> Match | None:
    """The number in text[start:end]. A part of a candidate must be unmistakable by itself."""
    value = text[start:end]
    if sum(map(str.isdigit, value)) < 7:
        return None
    if is_part and value[0] not in "+＋(（0" and not _CHINESE_MOBILE.match(value):
        return None
    if _CURRENCY_AFTER.match(text, end) or _DATE.match(value):
        return None
    before = text[max(0, start - 40) : start]
    introduced = _INTRODUCTION.search(before) is not None
    if not introduced and _OTHER_NUMBER.search(before) and value[0] not in "+＋":
        return None
    if not introduced and not _is_written_like_phone(value):
        return None
    span = _number(value, regions, is_introduced=introduced)
    return span and Match("phone", start + span[0], start + span[1], text[start + span[0] : start + span[1]])


def _is_written_like_phone(value: str) -> bool:
    if value[0] in "+＋(（" or value.startswith("00"):
        return True
    return _CHINESE_MOBILE.fullmatch(value) is not None or _SEPARATED.search(value) is not None


def _number(value: str, regions: Sequence[str], *, is_introduced: bool) -> tuple[int, int] | None:
    """(start, end) of the number in a candidate, by the first region that knows it."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    international = value[0] in "+＋" or value.startswith("00")
    leniency = Leniency.VALID if is_introduced or international else Leniency.STRICT_GROUPING
    for region in regions:
        for match in PhoneNumberMatcher(value, region, leniency=leniency):
            has_area = international or match.raw_string[0] in "0(（" or region in ("CN", "US")
            is_whole = match.start == 0 and has_area
            if (is_introduced or is_whole) and sum(map(str.isdigit, match.raw_string)) >= 7:
                return int(match.start), int(match.end)
    return None
