"""How the notes of the example speak: for each sign of risk, phrases that show it and phrases that deny it.

`{place}`, `{home}`, `{hour}`, `{minute}`, `{count}` are filled in by the generator. An empty phrase leaves the
subject out: silence is no sign.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of risk: its name in the answer, and the phrases with and without it."""

    name: str
    present: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """Everything that the generator needs to write notes in one language; answers are in English, as codes are."""

    signs: tuple[Sign, ...]
    heads: tuple[str, ...]
    currencies: tuple[str, ...]
    separators: tuple[str, ...]
    full_stop: str
    # Of these lists training takes the first part, validation and test the last: what they name is new.
    homes: tuple[str, ...]
    places: tuple[str, ...]
    purposes: tuple[str, ...]


AMOUNT_SIGN = "large amount"
QUESTION = "Risk 0 to 5? {note}"
ANSWER = "Reasons: {reasons}. Risk: {level}"

ENGLISH = Language(
    signs=(
        Sign(
            "unfamiliar place",
            (
                "in {place}, never been there before",
                "from {place} for the first time",
                "card shown in {place}, customer lives in {home}",
                "in {place}, far from home in {home}",
                "login from {place}, unknown location",
                "{place}, never seen for this customer",
                "from {place} while the customer's phone is in {home}",
                "place {place}, not on the travel list",
                "from {place}, a country without earlier payments",
                "ordered from {place} though home is {home}",
            ),
            (
                "in {home}, where the customer lives",
                "at the usual shop in {home}",
                "from {home} as always",
                "in {home}, home town",
                "near the office in {home}",
                "from {place}, visited every month",
                "in {place}, trip was announced",
                "same branch in {home}",
                "",
                "",
                "",
                "",
                "",
                "",
            ),
        ),
        Sign(
            "night hours",
            (
                "at 0{hour_night}:{minute}",
                "at {hour_night}:{minute} am",
                "at 0{hour_night}{minute} hours",
                "in the middle of the night",
                "long after midnight",
                "while the city sleeps",
                "shortly before dawn",
                "at {hour_night} in the night",
                "booked between midnight and four",
                "sent at dead of night",
            ),
            (
                "at {hour_day}:{minute}",
                "at {hour_pm}:{minute} pm",
                "in the afternoon",
                "around noon",
                "before lunch",
                "in the morning",
                "during office hours",
                "after breakfast",
                "",
                "",
                "",
                "",
            ),
        ),
        Sign(
            "new payee",
            (
                "to a payee added today",
                "to someone never paid before",
                "first payment to this account",
                "payee is new",
                "receiver entered an hour ago",
                "to an account opened last week",
                "no earlier payment to this receiver",
                "receiver unknown to us until now",
                "payee created just before",
            ),
            (
                "to the landlord as every month",
                "to a payee known for years",
                "payee paid often before",
                "standing recipient",
                "to the usual account",
                "to the own savings account",
                "receiver on the trusted list",
                "tenth payment to this receiver",
                "",
                "",
                "",
                "",
            ),
        ),
        Sign(
            "new device",
            (
                "from a phone not seen before",
                "new device",
                "on a computer registered minutes ago",
                "unknown browser",
                "device fingerprint does not match",
                "app installed afresh today",
                "tablet without history",
            ),
            (
                "from the usual phone",
                "known device",
                "with the customer's own tablet",
                "browser seen daily",
                "",
                "",
                "",
                "",
            ),
        ),
        Sign(
            "rapid repeats",
            (
                "{count} payments within ten minutes",
                "attempt {count} in a row",
                "number {count} in a quarter of an hour",
                "repeated {count} times in minutes",
                "{count} tries one after another",
                "burst of {count} transfers",
            ),
            (
                "only payment today",
                "single payment",
                "last payment was days ago",
                "",
                "",
                "",
            ),
        ),
    ),
    heads=(
        "{amount} for {purpose}",
        "Transfer of {amount} for {purpose}",
        "{amount} sent for {purpose}",
        "Paid {amount}, {purpose}",
        "Payment {amount}, reference {purpose}",
        "{purpose}: {amount}",
    ),
    currencies=("EUR", "GBP", "USD", "CHF"),
    separators=(", ", "; ", ". ", " - ", " / "),
    full_stop=".",
    homes=(
        "Leeds",
        "Hamburg",
        "Lyon",
        "Utrecht",
        "Porto",
        "Graz",
        "Turin",
        "Bergen",
        "Cork",
        "Aarhus",
        "Nantes",
        "Leipzig",
        "Malaga",
        "Gdansk",
        "Oulu",
        "Zagreb",
        "Bremen",
        "Ghent",
        "Bilbao",
        "Basel",
    ),
    places=(
        "Lagos",
        "Manila",
        "Minsk",
        "Bogota",
        "Almaty",
        "Harare",
        "Lima",
        "Tirana",
        "Quito",
        "Dhaka",
        "Nairobi",
        "Lahore",
        "Kiev",
        "Havana",
        "Amman",
        "Jakarta",
        "Baku",
        "Accra",
        "Hanoi",
        "Tunis",
    ),
    purposes=(
        "rent",
        "groceries",
        "a car repair",
        "school fees",
        "a sofa",
        "insurance",
        "a gift",
        "the electricity bill",
        "train tickets",
        "garden tools",
        "a dentist's bill",
        "a used car",
        "consulting",
        "a deposit",
        "books",
        "a bicycle",
        "roof repair",
        "a holiday flat",
        "medicine",
        "a watch",
    ),
)

CHINESE = Language(
    signs=(
        Sign("unfamiliar place", ("首次在{place}", "地点{place}陌生"), ("在{home}家中", "", "")),
        Sign("night hours", ("凌晨{hour_night}点", "半夜"), ("上午", "下午{hour_pm}点", "")),
        Sign("new payee", ("收款人陌生", "第一次付给此人"), ("每月付给房东", "常用账户", "")),
        Sign("new device", ("新手机", "没见过的设备"), ("常用手机", "", "")),
        Sign("rapid repeats", ("十分钟内{count}笔", "连续第{count}次"), ("单笔", "", "")),
    ),
    heads=("{purpose}{amount}", "转账{amount}，用于{purpose}"),
    currencies=("元",),
    separators=("，",),
    full_stop="。",
    homes=("上海", "广州", "南京", "北京", "天津"),
    places=("大同", "三亚", "海口", "西宁", "台州"),
    purposes=("房租", "买菜", "学费", "电费", "家具", "保险"),
)
