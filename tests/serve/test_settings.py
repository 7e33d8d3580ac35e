"""Where a setting comes from, and what is said when it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve.access.api_key import hash_key
from serve.errors import SettingsError
from serve.settings import CONFIG_VARIABLE, ServeSettings, load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")

KEY = "0123456789abcdef-the-key"


def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    path = tmp_path / "hotswap.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = load_settings()
    write_config(tmp_path, monkeypatch, 'port = 1\nmax_loras = 2\nbase = "file"\n')
    monkeypatch.setenv("HOTSWAP_PORT", "11")
    monkeypatch.setenv("HOTSWAP_MAX_LORAS", "12")
    settings = load_settings(port=21)
    assert (settings.port, settings.max_loras, settings.base) == (21, 12, "file")
    assert settings.max_queued_requests == default.max_queued_requests


@pytest.mark.parametrize("name", sorted(ServeSettings.model_fields))
def test_every_setting_has_a_variable_and_a_line_in_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = OTHER_VALUES[name]
    monkeypatch.setenv(f"HOTSWAP_{name.upper()}", text)
    assert shown(load_settings(), name) == value
    monkeypatch.delenv(f"HOTSWAP_{name.upper()}")
    assert shown(load_settings(), name) != value
    plain = text in ("true", "false") or text.replace(".", "", 1).isdigit()
    write_config(tmp_path, monkeypatch, f"{name} = {text}\n" if plain else f'{name} = "{text}"\n')
    assert shown(load_settings(), name) == value


def shown(settings: ServeSettings, name: str) -> Any:
    value = getattr(settings, name)
    return value.get_secret_value() if name == "admin_key" and value is not None else value


# Another value than the default for every setting: as text, and as the setting holds it.
OTHER_VALUES: dict[str, tuple[str, Any]] = {
    "engine_stall_seconds": ("5", 5.0),
    "engine_hang_seconds": ("90", 90.0),
    "engine_max_restarts": ("2", 2),
    "engine_restart_window_seconds": ("60", 60.0),
    "metrics_versions": ("64", 64),
    "otlp_endpoint": ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    "trace_share": ("0.5", 0.5),
    "review": ("patterns, bank.policy:review", ("patterns", "bank.policy:review")),
    "review_rules": ("/etc/hotswap/rules.toml", Path("/etc/hotswap/rules.toml")),
    "review_seconds": ("2.5", 2.5),
    "review_failure": ("open", "open"),
    "auth": ("open", "open"),
    "queue_seconds": ("20.5", 20.5),
    "first_token_seconds": ("30.5", 30.5),
    "key_refresh_seconds": ("1.5", 1.5),
    "key_outage_seconds": ("60.5", 60.5),
    "base": ("a/b", "a/b"),
    "base_revision": ("main", "main"),
    "served_model_name": ("smol", "smol"),
    "trust_remote_code": ("true", True),
    "home": ("/srv/hotswap", Path("/srv/hotswap")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("8123", 8123),
    "allowed_hosts": ("a.example, b.example", ("a.example", "b.example")),
    "engine": ("scripted", "scripted"),
    "engine_arg": ("tensor-parallel-size=2", ("tensor-parallel-size=2",)),
    "dtype": ("float16", "float16"),
    "max_model_len": ("64", 64),
    "kv_cache_gib": ("1.5", 1.5),
    "cpu_patches": ("none", "none"),
    "engine_niceness": ("3", 3),
    "cpu_kernels": ("hotswap", "hotswap"),
    "lm_head_bits": ("8", 8),
    "reasoning": ("off", "off"),
    "tool_parser": ("hermes", "hermes"),
    "structured_outputs": ("false", False),
    "grammar_compile_seconds": ("2.5", 2.5),
    "adapter_root": ("/srv/adapters", Path("/srv/adapters")),
    "allowed_sources": ("s3://bucket/a, hf://org", ("s3://bucket/a", "hf://org")),
    "watch_seconds": ("2.5", 2.5),
    "registry_url": ("sqlite:////srv/r.db", "sqlite:////srv/r.db"),
    "registry_poll_seconds": ("0.5", 0.5),
    "registry_timeout_seconds": ("4.5", 4.5),
    "keep_versions": ("3", 3),
    "max_loras": ("3", 3),
    "max_cpu_loras": ("65", 65),
    "max_lora_rank": ("32", 32),
    "max_adapter_mib": ("5", 5),
    "adapter_probe": ("off", "off"),
    "drain_seconds": ("1.5", 1.5),
    "max_num_seqs": ("7", 7),
    "max_queued_requests": ("7", 7),
    "max_queued_tokens": ("7", 7),
    "max_wait_seconds": ("7", 7.0),
    "session_header": ("X-Conversation", "X-Conversation"),
    "max_body_kib": ("7", 7),
    "receive_seconds": ("7", 7.0),
    "send_seconds": ("7", 7.0),
    "upload_seconds": ("7", 7.0),
    "request_seconds": ("7", 7.0),
    "max_tokens_default": ("7", 7),
    "admin_key": (KEY, KEY),
    "log_format": ("json", "json"),
    "log_level": ("error", "error"),
    "access_log": ("false", False),
}


def test_a_source_that_cannot_be_read_is_named() -> None:
    for prefix in ("http://host/adapters", "s3://key:secret@bucket", "bucket"):
        with pytest.raises(SettingsError, match="allowed_sources") as refused:
            load_settings(allowed_sources=prefix)
        assert "key:secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("max_lora = 3", "max_lora"),
        ('port = "eighty"', "port"),
        ("port = 70000", "port"),
        ("port = -1", "port"),
        ("max_lora_rank = 12", "max_lora_rank"),
        ('engine = "tgi"', "engine"),
        ("drain_seconds = -1.0", "drain_seconds"),
        ("request_seconds = 0", "request_seconds"),
        ("base = [1]", "base"),
        ("[serve]\nport = 1", "serve"),
        ("max_loras = 9\nmax_cpu_loras = 8", "--max-cpu-loras"),
    ],
)
def test_what_cannot_work_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, named: str
) -> None:
    write_config(tmp_path, monkeypatch, line + "\n")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert named in str(refused.value)
    assert "pydantic" not in str(refused.value)


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTSWAP_PORT", "x")
    with pytest.raises(SettingsError) as refused:
        load_settings(max_loras=0, dtype="int3")
    assert all(name in str(refused.value) for name in ("port", "max_loras", "dtype"))
    assert len(str(refused.value).splitlines()) == 4


def test_a_file_that_is_not_there_or_not_toml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "missing.toml"))
    with pytest.raises(SettingsError, match=r"missing\.toml.*does not exist"):
        load_settings()
    write_config(tmp_path, monkeypatch, "port = = 1\n")
    with pytest.raises(SettingsError, match=r"hotswap\.toml.*cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    "key",
    [
        "short",
        "sha256:",
        "sha256:abc",
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256: " + "a" * 63,
    ],
)
def test_a_weak_key_or_a_malformed_digest_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(SettingsError, match="admin_key") as refused:
        load_settings(admin_key=key)
    assert key == "sha256:" or key not in str(refused.value)


def test_a_digest_is_a_key() -> None:
    digest = f"sha256:{hash_key(KEY.encode()).hex()}"
    settings = load_settings(admin_key=digest)
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == digest


def test_secrets_are_masked() -> None:
    settings = load_settings(admin_key=KEY)
    assert KEY not in repr(settings)
    assert KEY not in str(settings)
    assert KEY not in str(settings.model_dump())
    assert KEY not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:
    assert load_settings(host=host).on_loopback == loopback


def test_folders_follow_the_home() -> None:
    settings = load_settings(home=Path("~/hot"))
    assert settings.home == Path.home() / "hot"
    assert settings.adapter_folder == Path.home() / "hot" / "adapters"
    assert settings.registry == f"sqlite:///{Path.home() / 'hot' / 'registry.db'}"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    for name, field in ServeSettings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "none.", "`.")), name


def test_an_engine_takes_no_new_work_before_it_is_given_up() -> None:
    with pytest.raises(SettingsError, match="--engine-hang-seconds \\(10\\) is below --engine-stall-seconds"):
        load_settings(engine_hang_seconds=10)
