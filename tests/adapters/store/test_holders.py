"""Any order of holding, publishing, wanting, removing, cleaning and dying, in three processes on one store.

Each store object has the lock file open for itself, as each process has; closing it is what the kernel does for a
killed one. HOTSWAP_TEST_STATEFUL_EXAMPLES=2000 looks for longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adapters.store.holds import Hold
from adapters.store.store import AdapterStore, Removal, digest_of
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES

NUM_PROCESSES, NUM_VERSIONS = 3, 2
PROCESS, VERSION = st.integers(0, NUM_PROCESSES - 1), st.integers(0, NUM_VERSIONS - 1)


@dataclass
class Process:
    """One process and what it has of the store."""

    store: AdapterStore
    holds: list[tuple[int, Hold]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


class Holders(RuleBasedStateMachine):
    """A model of who holds and wants what, beside the store."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hotswap-holders-"))
        self.sources = [
            make_tiny_adapter(self.folder / f"source-{seed}", linear_modules=LINEAR_MODULES, seed=seed)
            for seed in range(NUM_VERSIONS)
        ]
        self.digests = [str(digest_of(source)) for source in self.sources]
        self.processes = [self.start() for _ in range(NUM_PROCESSES)]
        self.present: set[int] = set()
        self.wanted: set[int] = set()
        self.abandoned: set[Path] = set()

    def start(self) -> Process:
        return Process(AdapterStore(self.folder / "store"))

    def held(self) -> Counter[int]:
        return Counter(version for process in self.processes for version, _ in process.holds)

    @rule(at=PROCESS, version=VERSION)
    def hold(self, at: int, version: int) -> None:
        process = self.processes[at]
        process.holds.append((version, process.store.hold(self.digests[version])))

    @rule(at=PROCESS, data=st.data())
    def release(self, at: int, data: st.DataObject) -> None:
        process = self.processes[at]
        if process.holds:
            _, hold = process.holds.pop(data.draw(st.integers(0, len(process.holds) - 1)))
            hold.release()

    @rule(at=PROCESS, version=VERSION)
    def publish(self, at: int, version: int) -> None:
        self.processes[at].store.publish(self.sources[version], self.digests[version])
        self.present.add(version)

    @rule(version=VERSION, wanted=st.booleans())
    def want(self, version: int, wanted: bool) -> None:
        (self.wanted.add if wanted else self.wanted.discard)(version)

    @rule(at=PROCESS, version=VERSION)
    def remove(self, at: int, version: int) -> None:
        removal = self.processes[at].store.remove(
            self.digests[version], wanted=lambda: version in self.wanted
        )
        if version not in self.present:
            assert removal is Removal.ABSENT
        elif self.held()[version]:
            assert removal is Removal.HELD
        elif version in self.wanted:
            assert removal is Removal.WANTED
        else:
            assert removal is Removal.GONE
            self.present.discard(version)

    @rule(at=PROCESS)
    def receive(self, at: int) -> None:
        process = self.processes[at]
        process.folders.append(process.store.open_staging())

    @rule(at=PROCESS)
    def received(self, at: int) -> None:
        process = self.processes[at]
        if process.folders:
            process.store.close_staging(process.folders.pop())

    @rule(at=PROCESS)
    def clean(self, at: int) -> None:
        assert self.processes[at].store.clean() == len(self.abandoned)
        self.abandoned.clear()

    @rule(at=PROCESS)
    def die(self, at: int) -> None:
        process = self.processes[at]
        process.store.close()
        self.abandoned |= {*process.folders}
        self.processes[at] = self.start()

    @invariant()
    def the_store_has_what_it_should_have(self) -> None:
        if not hasattr(self, "processes"):
            return
        store = self.processes[0].store
        assert store.list() == sorted(self.digests[version] for version in self.present)
        unfinished = {*(self.folder / "store").glob(".unfinished-*")}
        assert unfinished == self.abandoned.union(*(process.folders for process in self.processes))

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            process.store.close()
        for digest in self.processes[0].store.list():
            (self.folder / "store" / digest).chmod(0o700)
        shutil.rmtree(self.folder)


TestHolders = Holders.TestCase
TestHolders.settings = settings(
    max_examples=int(os.environ.get("HOTSWAP_TEST_STATEFUL_EXAMPLES", "25")),
    stateful_step_count=30,
    deadline=None,
)
