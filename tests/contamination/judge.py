"""Whether a request was answered as it had to be: by a version that was allowed to, in its words, with one end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.contamination.cast import Cast
from tests.contamination.clients import Heard
from tests.contamination.history import History
from tests.contamination.standing import NOTHING

BASE_NATS = 2e-3  # the base's numbers next to adapters and alone: rounding of another batch
MAX_KEPT = 50  # faults that are kept with their text; all are counted


@dataclass(frozen=True)
class Fault:
    """Something that must not be."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Judge:
    """Counts what was heard and keeps what was wrong."""

    cast: Cast
    history: History
    base_alone: dict[int, list[dict[int, float]]] = field(default_factory=dict)  # input -> token -> logprob
    faults: list[Fault] = field(default_factory=list)
    fault_kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    dialects: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)  # answers by version
    words: int = 0  # texts that were compared with a word
    largest_base_nats: float = 0.0
    on_fault: Callable[[], None] = lambda: None

    def hear(self, heard: Heard) -> None:
        """Judge one request that ended."""
        self.dialects[heard.dialect.name] += 1
        if heard.said.after_end:
            self.fault("two_ends", f"something came after the end: {heard}")
        if heard.lost is not None:
            self.outcomes["lost"] += 1
            self.fault("lost", f"{heard.lost}: {heard}")
        elif heard.cancelled:
            self.outcomes["cancelled"] += 1
            self._partial(heard)
        elif heard.said.ends != 1:
            self.fault("two_ends" if heard.said.ends else "lost", f"{heard.said.ends} ends: {heard}")
        elif heard.said.error is not None:
            self.outcomes[f"error {heard.said.error}"] += 1
            self._error(heard, heard.said.error)
        else:
            self.outcomes["answered"] += 1
            self._answer(heard)

    def fault(self, kind: str, text: str) -> None:
        """Write down what must not be."""
        self.on_fault()
        self.fault_kinds[kind] += 1
        if len(self.faults) < MAX_KEPT:
            self.faults.append(Fault(kind, text))

    def so_far(self) -> str:
        """What has been found up to now, in one line."""
        faults = ", ".join(f"{kind} {count}" for kind, count in self.fault_kinds.items())
        return (
            f"{self.dialects.total()} requests, {self.words} words compared, "
            f"{self.fault_kinds['wrong_word']} wrong, " + (f"faults: {faults}" if faults else "no fault")
        )

    def _answer(self, heard: Heard) -> None:
        said, reference = heard.said, heard.ask.reference
        if len(said.versions) != 1:
            self.fault("wrong_version", f"it names {len(said.versions)} versions: {heard}")
            return
        [version] = said.versions
        self.versions[version or "base"] += 1
        if reference is None:
            self._base(heard, version)
            return
        allowed = self._allowed(heard)
        if version is None or version not in allowed:
            self.fault("wrong_version", f"only {sorted(allowed)} could answer: {heard}")
        word = self.cast.words.get(version or "")
        self.words += 1
        if word is None or not self.cast.says(said.text, word):
            self.fault("wrong_word", f"it had to say {word!r}: {heard}")
        if said.finish not in ("stop", "length"):
            self.fault("finish", f"it ended with {said.finish!r}: {heard}")

    def _base(self, heard: Heard, version: str | None) -> None:
        if version is not None:
            self.fault("wrong_version", f"an adapter answered for the base: {heard}")
        for word in self.cast.words.values():
            if word in heard.said.text:
                self.fault("wrong_word", f"the base said an adapter's word {word!r}: {heard}")
        if self.cast.repeats and not self.cast.says(heard.said.text, "base"):
            self.fault("wrong_word", f"it was not the base that spoke: {heard}")
        alone = self.base_alone.get(heard.input)
        if heard.said.logprobs and alone is not None:
            for found, expected in zip(numbers(heard), alone, strict=False):
                shared = found.keys() & expected.keys()
                nats = max((abs(found[token] - expected[token]) for token in shared), default=float("inf"))
                self.largest_base_nats = max(self.largest_base_nats, nats)
                if nats > BASE_NATS:
                    self.fault("base_numbers", f"{nats:.1e} nats from the base alone: {heard}")

    def _error(self, heard: Heard, code: str) -> None:
        if code == "model_not_found":
            allowed = self._allowed(heard)
            if heard.status != 404 or NOTHING not in allowed:
                self.fault("refused", f"{sorted(allowed)} should have answered: {heard}")
        elif heard.status in (429, 503) and not _whole_seconds(heard.retry_after):
            self.fault("retry_after", f"{heard.status} with Retry-After {heard.retry_after!r}: {heard}")
        elif heard.status != 429 and not self.history.excused(code, heard.alias, heard.sent, heard.ended):
            self.fault("refused", f"nothing excuses this: {heard}")
        self._partial(heard)

    def _partial(self, heard: Heard) -> None:
        """What was said before the end is a beginning of what would have been right."""
        text = heard.said.text
        if not text:
            return
        if heard.ask.reference is None:
            if self.cast.repeats and not self.cast.says(text, "base", complete=False):
                self.fault("wrong_word", f"it was not the base that spoke: {heard}")
            return
        named = heard.said.versions - {None} or self._allowed(heard) - {NOTHING}
        words = {self.cast.words.get(version or "", "?") for version in named}
        self.words += 1
        if not any(self.cast.says(text, word, complete=False) for word in words):
            self.fault("wrong_word", f"it had to begin as one of {sorted(words)}: {heard}")

    def _allowed(self, heard: Heard) -> frozenset[str]:
        """What may have answered: the version was leased before the first byte was sent."""
        assert heard.ask.reference is not None
        until = heard.first if heard.first is not None else heard.ended
        return self.history.allowed(heard.ask.reference, heard.sent, until)


def numbers(heard: Heard) -> list[dict[int, float]]:
    """Token id to logprob at each place of an answer of the base."""
    return [{top["id"]: top["logprob"] for top in token["top"]} for token in heard.said.logprobs]


def _whole_seconds(value: str | None) -> bool:
    return value is not None and value.isascii() and value.isdigit() and int(value) >= 1
