"""The scan for personal data. Every number here is made up or from a vendor's documentation."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.clean.identifiers import passes_luhn, passes_mod97
from adapters.data.clean.personal import REPLACEMENTS, find_personal, masked, scan_personal
from adapters.data.example import Example, Message, Origin
from adapters.errors import DataError

FOUND = [
    ("Write to anna.smith@firm.co.uk.", "mail", "anna.smith@firm.co.uk"),
    ("邮箱zhang_san@qq.com，谢谢", "mail", "zhang_san@qq.com"),
    ("<bob+news@mail.example.org>", "mail", "bob+news@mail.example.org"),
    ("+49 171 2345678", "phone", "+49 171 2345678"),
    ("Call 030 12345678", "phone", "030 12345678"),
    ("0171 2345678", "phone", "0171 2345678"),
    ("(212) 456-7890", "phone", "(212) 456-7890"),
    ("212-456-7890", "phone", "212-456-7890"),
    ("020 7946 0958", "phone", "020 7946 0958"),
    ("0044 20 7946 0958", "phone", "0044 20 7946 0958"),
    ("1-800-555-1234", "phone", "1-800-555-1234"),
    ("tel: 2124567890", "phone", "2124567890"),
    ("手机13812345678，谢谢", "phone", "13812345678"),
    ("138-1234-5678", "phone", "138-1234-5678"),
    ("+86 138 1234 5678", "phone", "+86 138 1234 5678"),
    ("电话：021-61234567", "phone", "021-61234567"),
    ("03:12 13812345678", "phone", "13812345678"),
    ("2024-05-06 030 12345678", "phone", "030 12345678"),
    ("4111 1111 1111 1111", "card", "4111 1111 1111 1111"),
    ("card 5555555555554444 expired", "card", "5555555555554444"),
    ("3782 822463 10005", "card", "3782 822463 10005"),
    ("卡号6222021234567890128。", "card", "6222021234567890128"),
    ("DE89 3704 0044 0532 0130 00", "iban", "DE89 3704 0044 0532 0130 00"),
    ("IBAN GB29NWBK60161331926819 BIC", "iban", "GB29NWBK60161331926819"),
    ("身份证号11010519491231002X。", "identity card", "11010519491231002X"),
    ("SSN 123-45-6789", "ssn", "123-45-6789"),
]

NOT_PERSONAL = [
    "12,400 EUR",
    "1 200 000 EUR",
    "$1,234,567.89",
    "金额 12,400.50 元",
    "人民币 1234567890 元",
    "EUR 12.400,00",
    "Transfer of 9000 EUR at 03:12 to account 12345678",
    "amount 0 123 456 789",
    "50000 - 60000",
    "3.14159265358",
    "2024-05-06",
    "06.05.2024 12:30",
    "2024-05-06 12:30:45",
    "2024/05/06-2024/06/07",
    "02 04 2024",
    "in 1999 and 2024",
    "20240506123045",
    "2023 2024 2025 2026",
    "14:30-15:45",
    "09:00-17:00",
    "0800-1700",
    "2024年5月6日12点30分",
    "order 4711081512",
    "Order no. 2024567890",
    "订单号 202405061234567",
    "invoice 20240506-0012",
    "order #212-4567-890",
    "ISBN 978-3-16-148410-0",
    "第12345678号",
    "流水号：13800000000012",
    "ticket 123-4567",
    "12345678",
    "123456789",
    "1715000000",
    "x = 1234567890123",
    "100.000.000",
    "192.168.100.200",
    "v1.2.3.4",
    "4711-0815-12",
    "page 12-34-56",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "1 2 3 4 5 6 7 8 9",
    "10 20 30 40 50 60",
    "1000 2000 3000",
    "1234 5678 9012 3456",
    "4111 1111 1111 1112",
    "0000 0000 0000 0000",
    "DE89 3704 0044 0532 0130 01",
    "XX89370400440532013000",
    "110105194912310021",
    "11010519491331002X",
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "icon@2x.png",
    "git@github.com:owner/name",
    "@anna",
    "a @ b.c",
    "user@localhost",
    "50% @ 3.5",
]


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_personal_data_is_found(text: str, kind: str, value: str) -> None:
    assert [(match.kind, match.value) for match in find_personal(text)] == [(kind, value)]


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_ordinary_figures_are_not_personal(text: str) -> None:
    assert list(find_personal(text)) == []


def test_addresses_of_machines_are_found_only_on_request() -> None:
    assert list(find_personal("from 10.0.0.1 and 999.1.1.1")) == []
    assert [match.value for match in find_personal("from 10.0.0.1 and 999.1.1.1", ip=True)] == ["10.0.0.1"]


def test_regions_decide_whose_numbers_are_known_without_a_code() -> None:
    assert list(find_personal("tel 01 42 68 53 00", regions=("US",))) == []
    assert [match.kind for match in find_personal("tel 01 42 68 53 00", regions=("FR",))] == ["phone"]
    with pytest.raises(DataError, match="'XX'"):
        list(find_personal("tel 1", regions=("XX",)))


def _conversation() -> Example:
    return Example(
        Origin("data.jsonl", 3),
        messages=(
            Message("user", "Mail anna@firm.com or call +49 171 2345678, card 4111 1111 1111 1111"),
            Message("assistant", "我已发邮件到anna@firm.com。"),
        ),
    )


def test_warning_keeps_the_text_and_shows_no_value() -> None:
    plain = Example(Origin("data.jsonl", 4), text="12,400 EUR at 03:12")
    result = scan_personal([_conversation(), plain], action="warn")
    assert result.kept == (_conversation(), plain)
    assert result.changed == 0
    assert dict(result.counts) == {"mail": 2, "phone": 1, "card": 1}
    assert [finding.reason for finding in result.flagged] == [
        "personal data: mail a***m, phone +***8, card 4***1, mail a***m"
    ]


def test_redacting_replaces_every_find_in_every_part() -> None:
    result = scan_personal([_conversation()], action="redact")
    assert result.kept[0].parts() == ("Mail [MAIL] or call [PHONE], card [CARD]", "我已发邮件到[MAIL]。")
    assert result.flagged[0].example == result.kept[0]
    assert result.changed == 1
    assert scan_personal(result.kept, action="warn").flagged == ()


def test_off_looks_at_nothing() -> None:
    result = scan_personal([_conversation()], action="off")
    assert result.kept == (_conversation(),) and not result.flagged and not result.counts


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(DataError, match="warn, redact or off"):
        scan_personal([], action="delete")  # type: ignore[arg-type]


def test_many_finds_are_listed_in_part() -> None:
    text = " ".join(f"user{n}@firm.com" for n in range(8))
    result = scan_personal([Example(Origin("f", 1), text=text)], action="warn")
    assert result.flagged[0].reason.endswith(" and 3 more")


_PIECES = st.lists(st.sampled_from([text for text, _, _ in FOUND] + NOT_PERSONAL), max_size=6)


@settings(deadline=None)
@given(_PIECES)
def test_lines_are_judged_each_by_itself(pieces: list[str]) -> None:
    together = [(match.kind, match.value) for match in find_personal("\n".join(pieces))]
    assert together == [(match.kind, match.value) for piece in pieces for match in find_personal(piece)]


@settings(deadline=None)
@given(_PIECES, st.sampled_from([" ", "，", "\n", " and "]))
def test_only_the_finds_are_replaced(pieces: list[str], separator: str) -> None:
    text = separator.join(pieces)
    matches = list(find_personal(text, ip=True))
    assert all(a.end <= b.start for a, b in pairwise(matches))
    result = scan_personal([Example(Origin("f", 1), text=text)], action="redact", ip=True)
    rest = result.kept[0].text or ""
    for match in matches:
        assert text[match.start : match.end] == match.value
        before, _, rest = rest.partition(REPLACEMENTS[match.kind])
        assert text[match.start - len(before) : match.start] == before
        assert all(match.value not in finding.reason for finding in result.flagged)
    assert text.endswith(rest)


@given(st.integers(10**11, 10**17), st.integers(0, 9))
def test_luhn_accepts_one_of_ten_last_digits(number: int, last: int) -> None:
    valid = [digit for digit in range(10) if passes_luhn(f"{number}{digit}")]
    assert len(valid) == 1
    assert passes_luhn(f"{number}{last}") == (last == valid[0])


@pytest.mark.parametrize("iban", ["DE89370400440532013000", "FR1420041010050500013M02606", "NO9386011117947"])
def test_mod_97_accepts_an_iban_and_no_changed_digit(iban: str) -> None:
    assert passes_mod97(iban)
    for place in range(4, len(iban)):
        if iban[place].isdigit():
            assert not passes_mod97(iban[:place] + str((int(iban[place]) + 1) % 10) + iban[place + 1 :])


def test_masking_hides_all_but_the_ends() -> None:
    assert masked("anna@firm.com") == "a***m"
