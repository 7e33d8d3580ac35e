"""Every curl command of a page asks a route that there is, with a body and a query that it takes."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.routing import Match

from serve.app import HttpLimits, create_app
from serve.http.strict_json import JsonOnlyRoute
from serve.lifecycle.traffic import Guard, TrafficPlan
from serve.schemas.generate import GenerateAnswer, GenerateBody
from tests.docs.page import pages
from tests.docs.shell import Command, commands_of, mentions_of, parse

ROUTES = [
    route
    for route in create_app(lambda _: contextlib.nullcontext(), HttpLimits(1, 1, ())).routes
    if isinstance(route, APIRoute)
]
CURLS = [
    command
    for page in pages()
    for command in (*commands_of(page), *mentions_of(page, "curl"))
    if command.words[0] == "curl" and len(command.words) > 1
]
PLAIN_ROUTES = {"/docs", "/openapi.json"}
# Options of curl that take a value, and those that do not.
WITH_VALUE = {"-d": "data", "--data": "data", "-H": "header", "-X": "method", "-T": "upload", "-o": "file"}
WITHOUT_VALUE = frozenset({"-N", "-s", "-S", "-f", "-i", "-sS", "-fsS", "-sN"})
GATEWAY = re.compile(r"(https?://)?(localhost|127\.0\.0\.1):80\d\d/")


class WrongRequestError(Exception):
    """A request that the gateway would refuse."""


@dataclass
class Request:
    """What a curl command sends."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str | None


@pytest.mark.parametrize("command", CURLS, ids=lambda command: str(command)[:100])
def test_every_request_fits_its_route(command: Command) -> None:
    request = request_of(command)
    if request is not None:
        check(request)


def request_of(command: Command) -> Request | None:
    """What it sends to a gateway; None where its address is a word that the reader fills in."""
    given: dict[str, list[str]] = {kind: [] for kind in WITH_VALUE.values()}
    urls = []
    words = iter(command.words[1:])
    for word in words:
        if word in WITH_VALUE:
            given[WITH_VALUE[word]].append(next(words))
        elif word.startswith("-"):
            assert word in WITHOUT_VALUE, f"{command}: this test does not know {word}"
        else:
            urls.append(word)
    (url,) = urls
    if url == "URL":
        return None
    assert GATEWAY.match(url), f"{command}: {url} is no address of a gateway on this machine"
    parts = urlsplit(url if "://" in url else f"http://{url}")
    method = "POST" if given["data"] else "PUT" if given["upload"] else "GET"
    headers = dict(header.split(": ", 1) for header in given["header"])
    return Request(
        (given["method"] or [method])[0],
        parts.path,
        dict(parse_qsl(parts.query, keep_blank_values=True)),
        {name.lower(): value for name, value in headers.items()},
        given["data"][0] if given["data"] else None,
    )


def check(request: Request) -> None:
    """Raises WrongRequestError, with what the gateway would find fault with."""
    if request.method == "GET" and request.path in PLAIN_ROUTES:
        return
    route = find_route(request.method, request.path)
    dependant = get_flat_dependant(route.dependant)
    unknown = set(request.query) - {field.alias for field in dependant.query_params}
    if unknown:
        raise WrongRequestError(f"{route.path} takes no {unknown}")
    if not dependant.body_params:
        if request.body is not None:
            raise WrongRequestError(f"{route.path} takes no body")
        return
    if isinstance(route, JsonOnlyRoute) and request.headers.get("content-type") != "application/json":
        raise WrongRequestError(f"{route.path} asks for Content-Type: application/json")
    kind: Any = dependant.body_params[0].field_info.annotation
    try:
        TypeAdapter(kind).validate_json(request.body or "", strict=None)
    except ValidationError as error:
        raise WrongRequestError(str(error)) from error


def find_route(method: str, path: str) -> APIRoute:
    """Raises WrongRequestError when no route takes it."""
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    for route in ROUTES:
        if route.matches(scope)[0] is Match.FULL:
            return route
    raise WrongRequestError(f"there is no route {method} {path}")


@pytest.mark.parametrize(
    "line",
    [
        "curl localhost:8000/generat",
        "curl -X PUT localhost:8000/generate -d '{}'",
        'curl -d \'{"prompt": "x", "max_token": 8}\' localhost:8000/generate',
        'curl -d \'{"prompt": "x",}\' localhost:8000/generate',
        'curl -d \'{"name": "risk", "source": "risk/v1"}\' localhost:8000/admin/adapters',
        "curl 'localhost:8000/admin/events?sinc=3'",
        "curl -H 'Content-Type: application/json' -d '{\"lora_name\": 3}' localhost:8000/v1/load_lora_adapter",
    ],
)
def test_a_request_that_would_be_refused_is_found(line: str) -> None:
    (command,) = parse(line, "here")
    request = request_of(command)
    assert request is not None
    with pytest.raises(WrongRequestError):
        check(request)


def test_requests_of_each_kind_were_found() -> None:
    requests = [request for command in CURLS if (request := request_of(command)) is not None]
    paths = {request.path for request in requests}
    assert {"/generate", "/admin/adapters", "/v1/chat/completions", "/v1/load_lora_adapter"} <= paths
    assert sum(request.body is not None for request in requests) >= 6


# `POST /admin/adapters/{name}/promote`, `PUT .../traffic`, `GET`, `PUT`, `DELETE /admin/...`
NAMED = re.compile(r"^(GET|POST|PUT|DELETE) (/[a-z][^ ?]*)(\?\S*)?$")


def test_every_route_that_a_page_names_is_there() -> None:
    known = {(method, route.path) for route in ROUTES for method in route.methods}
    known |= {("GET", path) for path in PLAIN_ROUTES}
    found = 0
    for page in pages():
        for span in page.spans:
            match = NAMED.match(span)
            if match is None:
                continue
            method, path, query = match.groups()
            if path.endswith("..."):
                continue
            path = re.sub(r"/ID\b", "/{id}", path)
            shapes = {(m, re.sub(r"\{[^}]*\}", "{}", p)) for m, p in known}
            is_route = (method, re.sub(r"\{[^}]*\}", "{}", path)) in shapes
            if not is_route:
                find_route(method, path)
            found += 1
            names = {part.partition("=")[0] for part in (query or "?").lstrip("?").split("&")} - {""}
            taken = {
                field.alias
                for route in ROUTES
                if method in route.methods
                and re.sub(r"\{[^}]*\}", "{}", route.path) == re.sub(r"\{[^}]*\}", "{}", path)
                for field in get_flat_dependant(route.dependant).query_params
            }
            assert names <= taken or not is_route, f"{page.name}: {span}"
    assert found > 40


def test_the_pages_of_the_api_name_every_route() -> None:
    told = "".join(page.text for page in pages() if page.name in ("docs/api.md", "docs/dialects.md"))
    for route in ROUTES:
        last = [part for part in route.path.split("/") if not part.startswith("{")][-1]
        assert f"/{last}" in told, f"neither docs/api.md nor docs/dialects.md names {route.path}"


def test_the_sample_answer_of_generate_has_the_fields_that_come() -> None:
    (api,) = (page for page in pages() if page.name == "docs/api.md")
    (sample,) = (json.loads(block.text) for block in api.blocks if block.language == "json")
    assert set(sample) <= set(GenerateAnswer.model_fields)
    GenerateAnswer.model_validate(sample)


FIELDS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("docs/api.md", "| field | values | default |", GenerateBody),
    ("docs/canary.md", "| field | values | default |", TrafficPlan),
    ("docs/canary.md", "| field of `guard` | meaning | default |", Guard),
)


@pytest.mark.parametrize(("name", "header", "kind"), FIELDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_table_of_fields_has_each_of_them(name: str, header: str, kind: type[BaseModel]) -> None:
    (page,) = (page for page in pages() if page.name == name)
    table = page.text.split(header)[1].split("\n\n")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
    told = [field for cell in cells for field in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(kind.model_fields)
