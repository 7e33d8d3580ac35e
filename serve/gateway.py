"""The objects of one running gateway, made once (serve/build.py) and handed to the routes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from serve.access.authority import Authority
from serve.access.keyring import KeyRing
from serve.access.quotas import Quotas
from serve.access.salts import CacheSalts
from serve.admission.admission import Admission
from serve.engine.grammar import GrammarGuard
from serve.engine.supervised.engine import SupervisedEngine
from serve.http.exchange import Exchanges
from serve.lifecycle.canary import CanaryJudge
from serve.lifecycle.listing import Listing
from serve.lifecycle.manager import AdapterManager
from serve.lifecycle.residents import Residents
from serve.lifecycle.shadow import Shadows
from serve.lifecycle.uploads import Uploads
from serve.observability.audit import Audit
from serve.observability.events import EventLog
from serve.observability.metrics import GatewayMetrics
from serve.operations.operations import Operations
from serve.review.review import Reviewer
from serve.running import RunningRequests


class Phase(enum.StrEnum):
    """What the gateway is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class Gateway:
    """Belongs to one event loop."""

    engine: SupervisedEngine
    adapters: AdapterManager
    listing: Listing
    residents: Residents
    canaries: CanaryJudge
    shadows: Shadows
    uploads: Uploads
    operations: Operations
    events: EventLog
    audit: Audit
    admission: Admission
    exchanges: Exchanges
    running: RunningRequests
    metrics: GatewayMetrics
    access: Authority
    keys: KeyRing
    salts: CacheSalts
    quotas: Quotas
    review: Reviewer
    grammars: GrammarGuard
    max_tokens_default: int
    session_header: str = "X-Session-Id"  # names a client's session, for canaries
    phase: Phase = field(default=Phase.STARTING)
