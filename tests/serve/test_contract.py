"""The OpenAPI document against the server: random and edge-case requests to every route, over real sockets.

No request gets a 5xx, every answer is one that the document has, and what the document forbids is refused.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from adapters.store.store import digest_of
from adapters.tiny import make_tiny_adapter
from serve.app import HttpLimits, create_app
from serve.engine.scripted import SCRIPTED_TARGET, ScriptedEngine
from serve.gateway import Phase
from serve.operations.operation import ID_PATTERN
from serve.schemas.admin import DIGEST_PATTERN, NAME_PATTERN, VERSION_PATTERN
from serve.schemas.keys import KEY_ID_PATTERN
from serve.server import HotswapServer
from serve.settings import ServeSettings
from tests.patience import patient

KEY = "a key that is long enough for the admin API"
MODEL = "smollm2-135m-instruct"  # what the document's examples ask for
ADMIN_PATHS = r"^/admin|^/v1/(un)?load_lora_adapter$"
MAX_TOKENS = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
]
_START_SECONDS = patient(30)


def document(*, admin_key: bool) -> dict[str, Any]:
    limits = HttpLimits(max_body_bytes=1, receive_seconds=1, allowed_hosts=())
    return create_app(lambda _: contextlib.nullcontext(), limits, admin_key=admin_key).openapi()


everything = schemathesis.openapi.from_dict(document(admin_key=False))
admin_routes = schemathesis.openapi.from_dict(document(admin_key=True)).include(path_regex=ADMIN_PATHS)


class ServerThread:
    """A server on the scripted engine with one live adapter, in a thread of its own."""

    def __init__(self, home: Path, **given: Any) -> None:
        self.digests = []
        for seed, source in enumerate(("risk", "risk2")):
            folder = make_tiny_adapter(
                home / "adapters" / source,
                linear_modules=SCRIPTED_TARGET.linear_modules,
                base_name="scripted",
                seed=seed,
            )
            self.digests.append(str(digest_of(folder)))
        self.operation_id = self.key_id = ""
        self.prepared: set[str] = set()
        self.engine = ScriptedEngine(model_name=MODEL)
        self.server = HotswapServer(
            ServeSettings(home=home, engine="scripted", port=0, **given), engine=self.engine
        )
        self.session = requests.Session()
        self.answers: Counter[tuple[str, int]] = Counter()
        self._thread = threading.Thread(target=self.server.run)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.server.address

    def __enter__(self) -> ServerThread:
        self._thread.start()
        try:
            self._wait_ready()
            self.prepare("the first operation")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.server.should_exit = True
        self._thread.join()

    def prepare(self, label: str) -> None:
        """Before the first request to an operation: two versions of one adapter, and nothing else of it."""
        if label in self.prepared:
            return
        self.prepared.add(label)
        url, headers = f"{self.url}/admin/adapters", key_header()
        self.session.delete(f"{url}/risk", headers=headers)
        for source in ("risk2", "risk"):
            body = {"name": "risk", "source": source}
            loaded = self.session.post(url, json=body, headers=headers)
            assert loaded.status_code == 201, loaded.text
            self.operation_id = loaded.headers["X-Operation-Id"]
        made = self.session.post(f"{self.url}/admin/keys", json={"label": "contract"}, headers=headers)
        assert made.status_code == 201, made.text
        self.key_id = made.json()["id"]

    def known(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Most of the well-formed versions, operations and keys in a path are known ones."""
        patterns = {"version": DIGEST_PATTERN, "operation_id": ID_PATTERN, "key_id": KEY_ID_PATTERN}
        for field, pattern in patterns.items():
            value = parameters.get(field)
            if isinstance(value, str) and re.fullmatch(pattern, value):
                known = {
                    "version": self.digests[ord(value[0]) % 2],
                    "operation_id": self.operation_id,
                    "key_id": self.key_id,
                }[field]
                parameters = {**parameters, field: known if ord(value[-1]) % 4 else value}
        return parameters

    def ask_plainly(self, label: str) -> int:
        """The status of a request with known names and nothing else."""
        self.prepared.discard(label)
        self.prepare(label)
        method, path = label.split(" ", 1)
        version = self.digests[1]  # the one that "risk" does not mean
        path = path.format(name="risk", version=version, operation_id=self.operation_id, key_id=self.key_id)
        body: dict[str, Any] | None = None if method in ("GET", "DELETE") else {}
        return self.session.request(method, self.url + path, json=body, headers=key_header()).status_code

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (self.server.started and self._is_ready):
            assert self._thread.is_alive(), "the server ended"
            assert time.monotonic() < deadline, "the server does not become ready"
            time.sleep(0.01)

    @property
    def _is_ready(self) -> bool:
        gateway = self.server.life.gateway
        return gateway is not None and gateway.phase is Phase.READY


def key_header() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with ServerThread(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    with ServerThread(tmp_path_factory.mktemp("keyed"), admin_key=KEY) as server:
        yield server


def adapter_tar() -> bytes:
    """What a well-behaved client sends."""
    with tempfile.TemporaryDirectory() as folder:
        make_tiny_adapter(
            Path(folder), linear_modules=SCRIPTED_TARGET.linear_modules, base_name="scripted", seed=1
        )
        into = io.BytesIO()
        with tarfile.open(fileobj=into, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(Path(folder).iterdir()):
                tar.add(path, path.name)
        return into.getvalue()


@schemathesis.serializer("application/x-tar")
def serialise_tar(context: Any, value: Any) -> bytes:
    """Any bytes as they are; half of them are an adapter's instead."""
    data: bytes = value.data
    return adapter_tar() if len(data) % 2 else data


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Let well-formed names be known ones and answers be short, so that requests get through to the engine."""
    if isinstance(body, dict):
        for field in ("model", "adapter"):
            if isinstance(body.get(field), str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", body[field]):
                body = {**body, field: "risk" if len(body[field]) % 2 else MODEL}
        for field in ("max_tokens", "max_completion_tokens"):
            if type(body.get(field)) is int and MAX_TOKENS < body[field] <= 1_048_576:
                body = {**body, field: MAX_TOKENS}
        for field in ("source", "lora_path"):
            if isinstance(body.get(field), str) and re.fullmatch(r"\w{1,64}", body[field]):
                body = {**body, field: "risk"}
        if isinstance(body.get("lora_name"), str) and re.fullmatch(NAME_PATTERN, body["lora_name"]):
            body = {**body, "lora_name": "risk"}
        if isinstance(body.get("parameters"), dict):
            body = {**body, "parameters": map_parameters(body["parameters"])}
    return body


def map_parameters(asked: dict[str, Any]) -> dict[str, Any]:
    """The same for LoRAX's parameters."""
    if isinstance(asked.get("adapter_id"), str) and re.fullmatch(
        r"[A-Za-z0-9._-]{1,64}", asked["adapter_id"]
    ):
        asked = {**asked, "adapter_id": "risk"}
    if type(asked.get("max_new_tokens")) is int and MAX_TOKENS < asked["max_new_tokens"] <= 1_048_576:
        asked = {**asked, "max_new_tokens": MAX_TOKENS}
    return asked


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Half of the well-formed names are the loaded adapter's."""
    if isinstance(path_parameters, dict):
        for field in ("name", "model", "adapter"):
            value = path_parameters.get(field)
            if isinstance(value, str) and re.fullmatch(NAME_PATTERN, value) and len(value) % 2:
                path_parameters = {**path_parameters, field: "risk"}
    return path_parameters


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """A stream of events ends only when it is told to."""
    if context.operation is not None and context.operation.path == "/admin/events":
        query = dict(query or {})
        if isinstance(query.get("seconds", 0), int | float):
            query["seconds"] = 0
    return query


def ask(
    case: schemathesis.Case, server: ServerThread, checks: list[Any], headers: dict[str, str] | None = None
) -> None:
    server.prepare(case.operation.label)
    case.path_parameters = server.known(dict(case.path_parameters or {}))
    if isinstance(case.body, dict):
        version = case.body.get("version")
        if isinstance(version, str) and re.fullmatch(VERSION_PATTERN, version):
            case.body = {**case.body, **server.known({"version": version.rpartition("@")[2]})}
    response = case.call(base_url=server.url, session=server.session, headers=headers)
    server.answers[case.operation.label, response.status_code] += 1
    case.validate_response(response, checks=checks, headers=headers)


bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@everything.parametrize()
@bounded
def test_every_answer_is_in_the_document(case: schemathesis.Case, open_server: ServerThread) -> None:
    ask(case, open_server, CHECKS)


@admin_routes.parametrize()
@bounded
def test_admin_routes_ask_for_the_key(case: schemathesis.Case, keyed_server: ServerThread) -> None:
    ask(case, keyed_server, [*CHECKS, ignored_auth], key_header())


def test_the_document_asks_for_the_key_on_admin_routes_and_only_where_one_is_configured() -> None:
    for admin_key in (True, False):
        for path, operations in document(admin_key=admin_key)["paths"].items():
            for operation in operations.values():
                needs_key = admin_key and re.search(ADMIN_PATHS, path) is not None
                assert bool(operation.get("security")) == needs_key, path


def test_each_operation_was_answered_well_at_least_once(
    open_server: ServerThread, keyed_server: ServerThread
) -> None:
    for server in (open_server, keyed_server):
        asked = {label for label, _ in server.answers}
        well = {label for label, status in server.answers if status in (200, 201)}
        for label in asked - well:  # chance may have drawn nothing that can be answered well
            if server.ask_plainly(label) in (200, 201):
                well.add(label)
        assert asked
        assert asked == well, {answer: n for answer, n in server.answers.items() if answer[0] not in well}
