"""Personal identifiers that have a form and mostly a checksum: mail, cards, IBAN, identity card, SSN, IPv4."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Match:
    """One find: `value` is `text[start:end]`, and must not be shown."""

    kind: str
    start: int
    end: int
    value: str


# `\b` will not do: Chinese characters are word characters, and `邮箱zhang@qq.com` has no boundary.
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_])?@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}(?P<top>[A-Za-z]{2,18})(?![A-Za-z0-9@-])"
)
# `icon@2x.png` is a picture, and `git@github.com:owner/name` is nobody's address.
_FILE_NAMES = "png jpg jpeg gif svg webp ico js ts css html py json yaml yml txt md pdf zip"
_FILE_ENDINGS = frozenset(_FILE_NAMES.split())
_CARD = re.compile(r"(?<![\dA-Za-z.,_-])\d(?:[ -]?\d){12,18}(?![\dA-Za-z_]|[.,-]\d)")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?![A-Za-z0-9])|"
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}[A-Z0-9]{11,30}(?![A-Za-z0-9])"
)
_IDENTITY_CARD = re.compile(r"(?<![\dA-Za-z])[1-8]\d{5}(?:18|19|20)\d{9}[\dXx](?![\dA-Za-z])")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])", re.ASCII)
_IPV4 = re.compile(
    r"(?<![\d.A-Za-z])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d|[\dA-Za-z])"
)

# Length of an IBAN by country: the registry of SWIFT, release 99.
_IBAN_LENGTHS = {
    length: frozenset(countries.split())
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
}
# The first two digits of a resident identity card.
_PROVINCES = frozenset(
    f"{region}{province}"
    for region, provinces in {
        1: "12345",
        2: "123",
        3: "1234567",
        4: "123456",
        5: "01234",
        6: "12345",
        7: "1",
        8: "123",
    }.items()
    for province in provinces
)
_IDENTITY_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def find_mails(text: str) -> Iterator[Match]:
    """Mail addresses whose domain ends in letters that are no file ending."""
    if "@" not in text:
        return
    for match in _MAIL.finditer(text):
        is_remote = match.group().startswith("git@") and text[match.end() : match.end() + 1] in (":", "/")
        if match["top"].lower() not in _FILE_ENDINGS and not is_remote and ".." not in match.group():
            yield Match("mail", match.start(), match.end(), match.group())


def find_cards(text: str) -> Iterator[Match]:
    """Payment cards: 13 to 19 digits, alone or in groups, with an issuer's prefix and length, Luhn's checksum."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if _has_issuer(digits) and passes_luhn(digits) and _is_grouped_like_card(match.group()):
            yield Match("card", match.start(), match.end(), match.group())


def find_ibans(text: str) -> Iterator[Match]:
    """IBANs of a known country with its length and the remainder 1 modulo 97; also in groups of four."""
    for match in _IBAN.finditer(text):
        # A group too many may be the next word in capitals: cut back to the country's length.
        compact_length = next(
            (n for n, countries in _IBAN_LENGTHS.items() if match.group()[:2] in countries), 0
        )
        places = [place for place, character in enumerate(match.group()) if character.isalnum()]
        if compact_length == 0 or len(places) < compact_length:
            continue
        end = match.start() + places[compact_length - 1] + 1
        value = text[match.start() : end]
        compact = re.sub(r"[ -]", "", value)
        if passes_mod97(compact) and not text[end : end + 1].isalnum():
            yield Match("iban", match.start(), end, value)


def find_identity_cards(text: str) -> Iterator[Match]:
    """Resident identity cards of China (GB 11643): province, a date of birth that exists, checksum."""
    for match in _IDENTITY_CARD.finditer(text):
        if passes_identity_checksum(match.group()):
            yield Match("identity card", match.start(), match.end(), match.group())


def find_ssns(text: str) -> Iterator[Match]:
    """US social security numbers in the strict form 123-45-6789 with area, group and serial that are issued."""
    for match in _SSN.finditer(text):
        yield Match("ssn", match.start(), match.end(), match.group())


def find_ips(text: str) -> Iterator[Match]:
    """IPv4 addresses."""
    for match in _IPV4.finditer(text):
        yield Match("ip", match.start(), match.end(), match.group())


def passes_luhn(digits: str) -> bool:
    """ISO 7812: every second digit from the right doubled, cross sums, a multiple of ten.

    One digit repeated (all zeros) does not pass, though its sum would.
    """
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0 and len(set(digits)) > 1


def passes_mod97(iban: str) -> bool:
    """ISO 13616: country and check digits to the end, letters as 10 to 35, remainder 1."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def passes_identity_checksum(number: str) -> bool:
    """GB 11643: 17 digits weighted, modulo 11, `10X98765432`; with the province and the date of birth."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _IDENTITY_WEIGHTS, strict=True))
    return number[:2] in _PROVINCES and "10X98765432"[total % 11] == number[17].upper()


def _has_issuer(digits: str) -> bool:
    two, four, length = int(digits[:2]), int(digits[:4]), len(digits)
    return (
        (digits[0] == "4" and length in (13, 16, 19))  # Visa
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and length == 16)  # Mastercard
        or (two in (34, 37) and length == 15)  # American Express
        or ((four == 6011 or two == 65 or 644 <= int(digits[:3]) <= 649) and length == 16)  # Discover
        or (two == 62 and 16 <= length <= 19)  # UnionPay
        or (3528 <= four <= 3589 and length == 16)  # JCB
        or ((300 <= int(digits[:3]) <= 305 or two in (36, 38)) and length == 14)  # Diners Club
    )


def _is_grouped_like_card(value: str) -> bool:
    """Whether the digits stand together or in groups of four (American Express: 4, 6, 5)."""
    groups = [len(group) for group in re.split(r"[ -]", value)]
    return (
        len(groups) == 1
        or groups in ([4, 6, 5], [4, 6, 4], [6, 13])
        or (all(n == 4 for n in groups[:-1]) and groups[-1] <= 4)
    )


IDENTIFIERS: dict[str, Callable[[str], Iterator[Match]]] = {
    "mail": find_mails,
    "iban": find_ibans,
    "identity card": find_identity_cards,
    "card": find_cards,
    "ssn": find_ssns,
    "ip": find_ips,
}
"""Finders by kind, the surest first."""
