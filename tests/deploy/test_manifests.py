"""Compose, nginx and Kubernetes refer to what there is, and wait for longer than the gateway does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.app import create_app
from serve.build import http_limits
from serve.settings import KIB, MIB, ServeSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text(encoding="utf-8")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> ServeSettings:
    monkeypatch.setenv("HOTSWAP_CONFIG", "")
    return ServeSettings()


def documents(*names: str) -> list[dict[str, Any]]:
    return [
        document
        for name in names
        for document in yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))
    ]


def gateway() -> dict[str, Any]:
    (deployment,) = documents("kubernetes/gateway.yaml")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.y*ml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_every_setting_that_is_given_to_the_gateway_is_one(settings: ServeSettings) -> None:
    given = {entry["name"] for entry in gateway()["containers"][0]["env"]}
    for name in ("compose.yaml",):
        given |= set(documents(name)[0]["services"]["gateway"]["environment"])
    known = {f"HOTSWAP_{name.upper()}" for name in type(settings).model_fields}
    assert given <= known


def test_compose_files_mount_files_that_there_are() -> None:
    (compose,) = documents("compose.observability.yaml")
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    (secret,) = compose["secrets"]
    assert f"/run/secrets/{secret}" in (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    provided = documents("grafana/provisioning/dashboards/hotswap.yml")[0]["providers"][0]
    mounts = compose["services"]["grafana"]["volumes"]
    assert any(provided["options"]["path"] in mount for mount in mounts)


def test_variables_of_the_compose_files_are_in_the_example() -> None:
    named = set()
    for path in DEPLOY.glob("compose*.yaml"):
        named |= set(re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8")))
    example = (DEPLOY / "env.example").read_text(encoding="utf-8")
    assert named == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def seconds(directive: str) -> float:
    found = re.search(rf"^\s*{directive} (\d+)s;", NGINX, re.MULTILINE)
    assert found is not None, directive
    return float(found.group(1))


def test_nginx_waits_for_longer_than_the_gateway_does(settings: ServeSettings) -> None:
    assert seconds("proxy_read_timeout") > settings.request_seconds
    assert seconds("send_timeout") > settings.send_seconds
    assert seconds("client_body_timeout") >= settings.receive_seconds
    assert seconds("client_header_timeout") >= settings.receive_seconds


def test_nginx_takes_bodies_and_adapters_as_large_as_the_gateway_does(settings: ServeSettings) -> None:
    body, adapter = (int(size) * MIB for size in re.findall(r"client_max_body_size (\d+)m;", NGINX))
    assert body == settings.max_body_kib * KIB
    assert adapter >= settings.max_adapter_mib * MIB


def test_nginx_lets_streams_and_uploads_through_as_they_come() -> None:
    for directive in ("proxy_buffering off;", "proxy_request_buffering off;", "proxy_http_version 1.1;"):
        assert directive in NGINX
    assert NGINX.count("{") == NGINX.count("}")


def test_kubernetes_asks_routes_that_there_are(settings: ServeSettings) -> None:
    app = create_app(lambda _: (_ for _ in ()).throw(AssertionError), http_limits(settings))
    routes = set(app.openapi()["paths"])
    container = gateway()["containers"][0]
    probes = {
        name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {probe["path"] for probe in probes.values()} <= routes
    assert (
        probes["livenessProbe"]["path"] == "/livez"
    )  # an engine that restarts is no reason to kill the gateway
    (port,) = container["ports"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert str(port["containerPort"]) in container["args"]


def test_kubernetes_gives_the_gateway_time_to_drain() -> None:
    container = gateway()["containers"][0]
    drain = next(float(e["value"]) for e in container["env"] if e["name"] == "HOTSWAP_DRAIN_SECONDS")
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert gateway()["terminationGracePeriodSeconds"] >= drain + pause + 20
    (compose,) = documents("compose.yaml")
    assert (
        int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
        > ServeSettings.model_fields["drain_seconds"].default
    )


def test_kubernetes_keeps_what_a_restart_must_find_and_nothing_else_is_writable() -> None:
    spec, container = gateway(), gateway()["containers"][0]
    (claim,) = documents("kubernetes/storage.yaml")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    home = next(e["value"] for e in container["env"] if e["name"] == "HOTSWAP_HOME")
    assert mounts[home]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert spec["securityContext"]["runAsNonRoot"]
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {spec['securityContext']['runAsUser']}" in dockerfile


def test_kubernetes_names_meet() -> None:
    kustomization = documents("kubernetes/kustomization.yaml")[0]
    made = documents(*(f"kubernetes/{name}" for name in kustomization["resources"]))
    assert {document["kind"] for document in made} == {
        "Namespace",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "NetworkPolicy",
    }
    by_kind = {document["kind"]: document for document in made}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert by_kind["Service"]["spec"]["selector"].items() <= labels.items()
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    image = gateway()["containers"][0]["image"].partition(":")[0]
    assert image in {entry["name"] for entry in kustomization["images"]}
