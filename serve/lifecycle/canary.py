"""Judges canaries by what clients were answered and by their probes, and takes back what is worse than it may be.

The judge is told of each exchange when it has ended. What it decides it writes through the manager's verbs, so that
a rollback is in the audit log, on every replica and still there after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from adapters.name import AdapterVersion
from bases.errors import HotswapError
from serve.errors import ProbeFailedError
from serve.lifecycle.evidence import Window, typical_ratio
from serve.lifecycle.finding import Finding, probe_refused, too_many_errors, too_slow, version_failed
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import Guard, TrafficPlan
from serve.lifecycle.version import ManagedVersion
from serve.observability.metrics import GatewayMetrics

if TYPE_CHECKING:
    from serve.http.exchange import Record

logger = logging.getLogger("hotswap.canary")

ACTOR = "canary"  # in the audit log
# The rank test sorts some hundred times: not after each answer.
_ANSWERS_BETWEEN_RANKS = 8
_TICK_SECONDS = 1.0
DIGEST_LENGTH = 64


class Traffic(Protocol):
    """What the judge reads: serve.lifecycle.board.AdapterBoard."""

    def aliases(self) -> Mapping[str, ManagedVersion]:
        """The stable version of each name."""

    def behind(self, alias: str) -> ManagedVersion | None:
        """The stable version of one name."""

    def traffic(self, alias: str) -> TrafficPlan | None:
        """The plan beside it, with whole digests."""

    def get(self, version: AdapterVersion) -> ManagedVersion | None:
        """A version, if it is in this gateway."""


class TrafficVerbs(Protocol):
    """What the judge does: serve.lifecycle.manager.AdapterManager."""

    async def set_traffic(
        self, name: str, plan: TrafficPlan, *, actor: str, reason: str | None = None
    ) -> TrafficPlan:
        """Share the requests of `name`."""

    async def clear_traffic(self, name: str, *, actor: str, reason: str | None = None) -> TrafficPlan | None:
        """Leave all requests of `name` to the stable version."""

    async def promote(self, name: str, version: str, *, actor: str) -> object:
        """Let the name mean `version`, and clear its traffic."""

    async def probe_again(self, managed: ManagedVersion) -> object:
        """Raises ProbeFailedError when a live version does not answer as trained any more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one version of a name has done within the guard's window."""

    version: str
    canary: bool
    answers: int
    failures: int
    error_rate: float
    ttft_ratio: float | None  # median over the stable version's; None: one of them has no times


@dataclass(slots=True)
class _Trial:
    """One name while its plan has canaries and a guard."""

    plan: TrafficPlan
    guard: Guard
    stable: str  # engine name
    canaries: dict[str, AdapterVersion]  # by engine name
    windows: dict[str, Window]
    started: float  # when the plan began
    probed: dict[str, float] = field(default_factory=dict)  # when last, by engine name
    since_ranks: dict[str, int] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)  # decided and not yet done
    stood: int = 0  # answers of the canaries since the plan began


class CanaryJudge:
    """Belongs to one event loop. `observe` is one of `Exchanges.observers`."""

    def __init__(
        self,
        board: Traffic,
        verbs: TrafficVerbs,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._board = board
        self._verbs = verbs
        self._metrics = metrics
        self._clock = clock
        self._tick_seconds = tick_seconds
        self._trials: dict[str, _Trial] = {}
        self._acting: dict[str, asyncio.Task[None]] = {}  # by alias
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Probe, roll out and try again what failed, from now on."""
        self._ticking = asyncio.create_task(self._tick_on(), name="canary judge")

    async def close(self) -> None:
        """Judge no more. Idempotent."""
        ticking, self._ticking = self._ticking, None
        tasks = [*self._acting.values(), *([ticking] if ticking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def observe(self, record: Record) -> None:
        """One exchange has ended."""
        if record.adapter is None or record.version is None:
            return
        trial = self._trial(record.adapter)
        if trial is None or record.version not in trial.windows:
            return
        failed = version_failed(record)
        if failed is None:
            return
        trial.windows[record.version].add(failed=failed, ttft_seconds=record.ttft_seconds)
        if record.version in trial.canaries:
            trial.stood += 1
            if record.version not in trial.findings:
                self._weigh(record.adapter, trial, record.version)

    def standings(self, alias: str) -> list[Standing]:
        """How the stable version and the canaries of a name do; none without a guard."""
        trial = self._trial(alias)
        if trial is None:
            return []
        stable = trial.windows[trial.stable]
        return [
            Standing(
                version=version,
                canary=version in trial.canaries,
                answers=window.answers,
                failures=window.failures,
                error_rate=window.error_rate,
                ttft_ratio=typical_ratio(window.times(), stable.times()),
            )
            for version, window in trial.windows.items()
        ]

    async def tick(self) -> None:
        """Probe whatever is due, take the next step of rollouts, try again what failed."""
        for alias in {*self._board.aliases(), *self._trials}:
            trial = self._trial(alias)
            if trial is None:
                continue
            for version in trial.canaries:
                if version not in trial.findings:
                    await self._probe(alias, trial, version)
            trial = self._trial(alias)
            if trial is not None and trial.findings:
                self._act(alias)
            elif trial is not None:
                await self._roll_out(alias, trial)

    async def settled(self) -> None:
        """Return when nothing is being taken back."""
        while self._acting:
            await asyncio.wait(self._acting.values())

    def _trial(self, alias: str) -> _Trial | None:
        """The trial of a name as its plan has it now."""
        plan, stable = self._board.traffic(alias), self._board.behind(alias)
        trial = self._trials.get(alias)
        if plan is None or plan.guard is None or not plan.shares or stable is None:
            self._trials.pop(alias, None)
            return None
        name = str(stable.version)
        if trial is not None and (trial.plan is plan or trial.plan == plan) and trial.stable == name:
            return trial
        # A plan that somebody else wrote into the registry may have digests that are cut short: nobody's.
        versions = [AdapterVersion(alias, d) for d in plan.shares if len(d) == DIGEST_LENGTH]
        canaries = {str(version): version for version in versions if version != stable.version}
        before = trial.windows if trial is not None and trial.guard == plan.guard else {}
        windows = {
            version: before.get(version) or Window(plan.guard.window_seconds, self._clock)
            for version in (name, *canaries)
        }
        made = _Trial(plan, plan.guard, name, canaries, windows, started=self._clock())
        if trial is not None:
            made.probed = {version: at for version, at in trial.probed.items() if version in canaries}
        self._trials[alias] = made
        return made

    def _weigh(self, alias: str, trial: _Trial, version: str) -> None:
        """Judge a canary by its answers."""
        canary, stable = trial.windows[version], trial.windows[trial.stable]
        if canary.answers < trial.guard.min_requests:
            return
        finding = too_many_errors(trial.guard, canary, stable)
        since = trial.since_ranks.get(version, _ANSWERS_BETWEEN_RANKS) + 1
        if finding is None and since >= _ANSWERS_BETWEEN_RANKS:
            finding, since = too_slow(trial.guard, canary, stable), 0
        trial.since_ranks[version] = since
        if finding is not None:
            self._find(alias, trial, version, finding)

    def _find(self, alias: str, trial: _Trial, version: str, finding: Finding) -> None:
        trial.findings[version] = finding
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in finding.numbers.items())
        logger.warning("canary %s is taken back: %s (%s)", version, finding.reason, numbers or "no numbers")
        self._act(alias)

    def _act(self, alias: str) -> None:
        """Do what was found, beside whoever found it."""
        if alias not in self._acting:
            task = asyncio.create_task(self._take_back(alias), name=f"take back the canary of {alias}")
            self._acting[alias] = task
            task.add_done_callback(lambda _: self._acting.pop(alias, None))

    async def _take_back(self, alias: str) -> None:
        """Raises nothing but a cancellation."""
        trial = self._trial(alias)
        if trial is None or not trial.findings:
            return  # somebody else changed the plan meanwhile
        findings = dict(trial.findings)
        bad = {trial.canaries[version].digest for version in findings}
        shares = {digest: share for digest, share in trial.plan.shares.items() if digest not in bad}
        reason = "; ".join(f"{version}: {finding.reason}" for version, finding in findings.items())
        try:
            if shares or trial.plan.shadow:
                plan = trial.plan.model_copy(update={"shares": shares, "rollout": None})
                await self._verbs.set_traffic(alias, plan, actor=ACTOR, reason=reason)
            else:
                await self._verbs.clear_traffic(alias, actor=ACTOR, reason=reason)
        except HotswapError as error:
            logger.error(
                "the canary of %s could not be taken back, and will be tried again: %s", alias, error
            )
            return
        except Exception:  # the background boundary: the next tick tries again
            logger.exception("the canary of %s could not be taken back, and will be tried again", alias)
            return
        for version, finding in findings.items():
            self._metrics.canary_decisions.labels(finding.fault).inc()
            logger.warning("canary %s taken back; %s answers alone", version, trial.stable)

    def _live(self, trial: _Trial, version: str) -> ManagedVersion | None:
        managed = self._board.get(trial.canaries[version])
        return managed if managed is not None and managed.state is AdapterState.LIVE else None

    async def _probe(self, alias: str, trial: _Trial, version: str) -> None:
        """Probe a canary if it is time."""
        every, managed = trial.guard.probe_seconds, self._live(trial, version)
        if every is None or managed is None:
            return
        if self._clock() - trial.probed.get(version, trial.started) < every:
            return
        trial.probed[version] = self._clock()
        try:
            await self._verbs.probe_again(managed)
        except ProbeFailedError as error:
            if error.cause == "not_measured":
                logger.warning("canary %s could not be probed: %s", version, error)
                return
            now = self._trial(alias)  # the plan may have changed since
            if now is not None and version in now.canaries:
                self._find(alias, now, version, probe_refused(error))
        except HotswapError as error:  # nothing about the canary: the engine is busy with itself
            logger.warning("canary %s could not be probed: %s", version, error)

    async def _roll_out(self, alias: str, trial: _Trial) -> None:
        """Give the one canary its next share when it has stood the last one."""
        rollout = trial.plan.rollout
        if rollout is None or len(trial.canaries) != 1:
            return
        (version,) = trial.canaries
        ((digest, share),) = trial.plan.shares.items()
        if (
            self._live(trial, version) is None
            or self._clock() - trial.started < rollout.step_seconds
            or trial.stood < trial.guard.min_requests
        ):
            return
        larger = rollout.after(share)
        reason = f"{version} stood a share of {share:g} for {trial.stood} requests"
        try:
            if larger is not None:
                plan = trial.plan.model_copy(update={"shares": {digest: larger}})
                await self._verbs.set_traffic(alias, plan, actor=ACTOR, reason=reason)
                logger.info("canary %s: %s; its share is %g now", version, reason, larger)
            else:
                await self._verbs.promote(alias, digest, actor=ACTOR)
                self._metrics.canary_decisions.labels("promoted").inc()
                logger.info("canary %s: %s; it is the stable version now", version, reason)
        except HotswapError as error:  # the next tick tries again
            logger.error("the rollout of %s could not go on: %s", version, error)

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            try:
                await self.tick()
            except Exception:  # the background boundary: a judge that stops would leave canaries alone
                logger.exception("the judge of canaries failed, and goes on")
