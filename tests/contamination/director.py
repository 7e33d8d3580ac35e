"""Whoever moves the names while the clients ask: one director for each name, one verb after another.

A director knows what each verb must do (standing.py) and writes it into the history before it sends the verb. Some
verbs must be refused; those change nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from tests.contamination.admin import Admin
from tests.contamination.cast import DAMAGED, Cast, Version
from tests.contamination.history import Answerers, History
from tests.contamination.judge import Judge
from tests.contamination.standing import NOTHING, Standing

VERB_SECONDS = 120.0
DRAIN_SECONDS = 60.0  # longer than any request
# What a verb may end with while the engine is being killed under it.
ENGINE_GONE = frozenset(
    {"engine_dead", "engine_not_ready", "aborted", "adapter_unavailable", "adapter_error"}
)


class Director:
    """Moves one name."""

    def __init__(self, client: Admin, cast: Cast, name: str, judge: Judge, *, seed: int) -> None:
        self.standing = Standing()
        self.verbs: Counter[str] = Counter()
        self.cut_off: Counter[str] = Counter()  # verbs that an engine's death ended
        self.trace: deque[str] = deque(maxlen=20)  # the last verbs, for whoever looks into a fault
        self.name = name
        self._client = client
        self._versions = cast.of(name)
        self._judge = judge
        self._history: History = judge.history
        self._drawn = random.Random(f"{seed}-{name}")

    async def begin(self) -> None:
        """The first version goes live."""
        await self._load(self._versions[0])

    async def run(self, stop: asyncio.Event, *, pause_seconds: float) -> None:
        """One verb after another until `stop` is set; the last one is done when this returns.

        A verb that gets no answer is a fault, and the last one: nobody knows what it did.
        """
        while not stop.is_set():
            weights, verbs = zip(*self._verbs(), strict=True)
            [verb] = self._drawn.choices(verbs, weights)
            try:
                await verb()
            except httpx.TransportError as error:
                self._judge.fault("admin", f"{self.name} got no answer: {error!r}; {'; '.join(self.trace)}")
                return
            try:
                async with asyncio.timeout(self._drawn.expovariate(1 / pause_seconds)):
                    await stop.wait()
            except TimeoutError:
                pass

    def _verbs(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        """The verbs and how often each is drawn."""
        return [
            (24 if self.standing.live is not None else 60, self._load_any),
            (4, self._load_beside),
            (4, self._load_again),
            (4, self._load_damaged),
            (4, self._validate),
            (10, self._promote),
            (8, self._rollback),
            (10, self._share),
            (5, self._clear),
            (4, self._pin),
            (5, self._unpin),
            (4, self._prefetch),
            (4, self._unload_version),
            (3, self._unload),
            (2, self._unload_at_once),
            (2, self._load_mistaken),
        ]

    def _any(self) -> Version:
        return self._drawn.choice(self._versions)

    async def _load_any(self) -> None:
        await self._load(self._drawn.choice([v for v in self._versions if str(v) != self.standing.live]))

    async def _load(self, version: Version) -> None:
        body = {"name": self.name, "source": version.source}
        await self._move("load", self.standing.load(str(version)), "POST", "", body)

    async def _load_beside(self) -> None:
        version = self._any()
        body = {"name": self.name, "source": version.source, "promote": False}
        await self._move("load beside", self.standing.load(str(version), promote=False), "POST", "", body)

    async def _load_again(self) -> None:
        """Twice at once."""
        version = self._any()
        body = {"name": self.name, "source": version.source}
        after = self.standing.load(str(version))
        with self._history.change(self._answerers(after)) as change:
            answers = await asyncio.gather(*(self._send("POST", "", body) for _ in range(2)))
            checked = [self._succeeded("load twice", answer) for answer in answers]
            if any(checked) or await self._looks_like(after):
                self.standing = after
            else:
                change.fail()
        if not await self._looks_like(self.standing):
            self._fault("load twice left neither what was nor what should be", answers[0])

    async def _load_damaged(self) -> None:
        body = {"name": self.name, "source": DAMAGED}
        self._refused("load damaged", await self._send("POST", "", body), {422})

    async def _load_mistaken(self) -> None:
        """Somebody else was quicker: what is expected to be live is not."""
        expected = "none" if self.standing.live is not None else f"{self.name}@{'0' * 8}"
        body = {"name": self.name, "source": self._any().source, "expected_live": expected}
        self._refused("load mistaken", await self._send("POST", "", body), {409})

    async def _validate(self) -> None:
        source = self._drawn.choice([DAMAGED, self._any().source])
        self.verbs["validate"] += 1
        answer = await self._send("POST", "/validate", {"source": source})
        if answer.status_code != 200 or answer.json()["ok"] != (source != DAMAGED):
            self._fault("validate", answer)

    async def _promote(self) -> None:
        version = self._any()
        body = {"version": str(version)}
        await self._move(
            "promote", self.standing.promote(str(version)), "POST", f"/{self.name}/promote", body
        )

    async def _rollback(self) -> None:
        await self._move("rollback", self.standing.rollback(), "POST", f"/{self.name}/rollback")

    async def _share(self) -> None:
        """A canary, two, a shadow, or a canary and a shadow."""
        others = [v for v in self._versions if str(v) != self.standing.live]
        self._drawn.shuffle(others)
        canaries = others[: self._drawn.choice((0, 1, 1, 2))]
        shadows = others[len(canaries) : len(canaries) + 1]
        share = self._drawn.choice((0.1, 0.3, 0.5))
        shadow_share = self._drawn.choice((0.5, 1.0))
        body = {
            "shares": {version.digest: share for version in canaries},
            "shadow": {version.digest: shadow_share for version in shadows},
            "sticky": self._drawn.choice(("none", "session")),
        }
        after = self.standing.share(
            {str(version): share for version in canaries}, frozenset(map(str, shadows))
        )
        await self._move("traffic", after, "PUT", f"/{self.name}/traffic", body)

    async def _clear(self) -> None:
        await self._move("clear traffic", self.standing.clear(), "DELETE", f"/{self.name}/traffic")

    async def _pin(self) -> None:
        version = self._any()
        await self._move("pin", self.standing.pin(str(version)), "POST", self._path(version, "/pin"))

    async def _unpin(self) -> None:
        version = self._any()
        await self._move("unpin", self.standing.unpin(str(version)), "DELETE", self._path(version, "/pin"))

    async def _prefetch(self) -> None:
        version = self._any()
        path = self._path(version, "/prefetch")
        await self._move("prefetch", self.standing.prefetch(str(version)), "POST", path)

    async def _unload_version(self) -> None:
        version = self._any()
        path = self._path(version, f"?drain_seconds={DRAIN_SECONDS:g}")
        await self._move("unload version", self.standing.unload_version(str(version)), "DELETE", path)

    async def _unload(self) -> None:
        path = f"/{self.name}?drain_seconds={DRAIN_SECONDS:g}"
        await self._move("unload", self.standing.unload(), "DELETE", path)

    async def _unload_at_once(self) -> None:
        with self._history.excuse("aborted", name=self.name):
            path = f"/{self.name}?drain_seconds=0"
            await self._move("unload at once", self.standing.unload(), "DELETE", path)

    async def _move(
        self, verb: str, after: Standing | None, method: str, path: str, body: Any = None
    ) -> None:
        """A verb that makes `after` of this name; None: one that has to be refused."""
        if after is None:
            self._refused(f"{verb} in vain", await self._send(method, path, body), {404, 409})
            return
        with self._history.change(self._answerers(after)) as change:
            answer = await self._send(method, path, body)
            if self._succeeded(verb, answer):
                self.standing = after
                return
            if await self._looks_like(after):
                self.standing = after  # it was done, though it said that it was not
                return
            change.fail()
        if not await self._looks_like(self.standing):
            self._fault(f"{verb} left neither what was nor what should be", answer)

    async def _looks_like(self, standing: Standing) -> bool:
        """Whether that is the server's own account of the name."""
        answer = await self._client.get(f"/admin/adapters/{self.name}")
        if answer.status_code == 404:
            return not standing.known
        shown = answer.json()
        versions = shown["versions"]
        return bool(
            shown["desired"] == standing.live
            and {version["version"] for version in versions if version["wanted"]} == standing.wanted
            and {version["version"] for version in versions if version["pinned"]} == standing.pinned
            and knows(versions, standing)
        )

    def _answerers(self, standing: Standing) -> dict[str, Answerers]:
        known: dict[str, Answerers] = {self.name: standing.answerers}
        for version in map(str, self._versions):
            known[version] = frozenset({version if version in standing.wanted else NOTHING})
        return known

    def _path(self, version: Version, rest: str) -> str:
        return f"/{self.name}/versions/{version.digest[:12]}{rest}"

    async def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        url = f"/admin/adapters{path}"
        answer = await self._client.request(method, url, body=body, seconds=VERB_SECONDS)
        failed = answer.status_code >= 400
        code = answer.json()["error"]["code"] if failed else ""
        self.trace.append(f"{method} {path} {body or ''} {answer.status_code} {code}".replace("  ", " "))
        return answer

    def _succeeded(self, verb: str, answer: httpx.Response) -> bool:
        self.verbs[verb] += 1
        if answer.status_code in (200, 201):
            return True
        if not self._engine_gone(verb, answer):
            self._fault(verb, answer)
        return False

    def _refused(self, verb: str, answer: httpx.Response, expected: set[int]) -> None:
        self.verbs[verb] += 1
        if self.cut_off and answer.status_code == 200 and answer.json().get("unloaded") == []:
            return  # what a load that was cut off left behind to be looked at is taken away
        if answer.status_code not in expected and not self._engine_gone(verb, answer):
            self._fault(verb, answer)

    def _engine_gone(self, verb: str, answer: httpx.Response) -> bool:
        """Whether a verb failed because the engine was killed meanwhile."""
        if answer.status_code < 400:
            return False
        code = answer.json()["error"]["code"]
        excused = code in ENGINE_GONE and self._history.killed_lately(VERB_SECONDS)
        self.cut_off[verb] += excused
        return excused

    def _fault(self, verb: str, answer: httpx.Response) -> None:
        self._judge.fault("verb", f"{verb} {self.name}: {answer.status_code} {answer.text[:300]}")


def knows(versions: Sequence[Mapping[str, Any]], standing: Standing) -> bool:
    """Whether the listed versions are the known ones, and besides only what failed and is shown with its reason."""
    listed = {version["version"]: version["state"] for version in versions}
    return standing.known <= listed.keys() and all(
        state == "failed" for version, state in listed.items() if version not in standing.known
    )
