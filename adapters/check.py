"""The check before loading: everything that is wrong with an adapter, at once, without an engine.

It opens the folder once, reads two small JSON files and the header of the weights, and then every value in
pieces of a few megabytes; it runs nothing from the folder and needs no deep-learning library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.artefact import (
    MANIFEST_NAME,
    PROBE_NAME,
    WEIGHTS_NAME,
    AdapterArtefact,
    AdapterFile,
    read_artefact,
    read_weights_header,
)
from adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES, AdapterConfig, parse_config
from adapters.config_rules import check_config
from adapters.digest import compute_digest
from adapters.errors import AdapterFileError, SafetensorsHeaderError
from adapters.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest, verify_manifest
from adapters.probe import MAX_PROBE_BYTES, Probe, parse_probe
from adapters.report import AdapterFacts, CheckReport, Findings
from adapters.safetensors_header import TensorEntry
from adapters.target import TargetBase
from adapters.tensor_name import parse_tensor_name
from adapters.tensor_rules import ValueScan, check_names, check_shapes

DEFAULT_MAX_BYTES = 2 * 1024**3


def check_adapter(
    folder: Path,
    *,
    target: TargetBase | None,
    max_lora_rank: int | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> CheckReport:
    """Check the adapter in `folder` and report; what lies there never makes this raise.

    Without `target` nothing is compared with a base; without `max_lora_rank` only the engine's own maximum
    holds. A weights file of more than `max_bytes` is not read.
    """
    problems, warnings = Findings(), Findings()
    with read_artefact(folder) as artefact:
        problems.extend(artefact.problems)
        config = _read_config(artefact, problems)
        usable = config is not None and check_config(config, max_lora_rank=max_lora_rank, findings=problems)
        tensors = _read_tensors(artefact, max_bytes, problems)
        digest = None
        if tensors is not None:
            digest = _check_weights(
                artefact.files[WEIGHTS_NAME], tensors, config if usable else None, target, problems
            )
        manifest = _read_manifest(artefact, digest, problems)
        probe = _read_probe(artefact, problems)
        if target is None:
            warnings.add("no_target", "Checked without a base: names and shapes were not compared with one.")
        else:
            _check_base(config, manifest, probe, target, problems, warnings)
        _warn_about_targets(config, tensors, warnings)
        facts = _gather_facts(artefact, config if usable else None, tensors, digest, manifest, probe)
    return CheckReport(problems.listed(), warnings.listed(), facts)


def _read_config(artefact: AdapterArtefact, findings: Findings) -> AdapterConfig | None:
    file = artefact.files.get(CONFIG_NAME)
    if file is None:
        return None
    try:
        return parse_config(file.read_all(max_bytes=MAX_CONFIG_BYTES))
    except AdapterFileError as error:
        findings.add("config_invalid", str(error), CONFIG_NAME)
        return None


def _read_tensors(
    artefact: AdapterArtefact, max_bytes: int, findings: Findings
) -> Mapping[str, TensorEntry] | None:
    file = artefact.files.get(WEIGHTS_NAME)
    if file is None:
        return None
    if file.num_bytes > max_bytes:
        findings.add(
            "too_large",
            f"{WEIGHTS_NAME} has {file.num_bytes} bytes, at most {max_bytes} are accepted. "
            "Train with a smaller rank or fewer modules, or raise the server's limit.",
            WEIGHTS_NAME,
        )
        return None
    try:
        return read_weights_header(file)
    except SafetensorsHeaderError as error:
        code = "dtype_unsupported" if error.reason == "dtype" else "safetensors_invalid"
        findings.add(code, str(error), WEIGHTS_NAME)
    except AdapterFileError as error:
        findings.add("unreadable", str(error), WEIGHTS_NAME)
    return None


def _check_weights(
    weights: AdapterFile,
    tensors: Mapping[str, TensorEntry],
    config: AdapterConfig | None,
    target: TargetBase | None,
    findings: Findings,
) -> str | None:
    """Check names, shapes and values; return the digest, None where the configuration is not usable."""
    modules = check_names(tensors, config, findings)
    if config is not None:
        check_shapes(modules, config, target, findings)
    scan = ValueScan(tensors)
    try:
        # An unusable configuration has no digest, but the values are looked at all the same.
        digest = compute_digest(weights, tensors, config or _ANY_CONFIG, observe=scan.observe)
    except AdapterFileError as error:
        findings.add("unreadable", str(error), WEIGHTS_NAME)
        return None
    scan.report(modules, config, findings)
    return digest if config is not None else None


_ANY_CONFIG = AdapterConfig({"r": 1, "lora_alpha": 1})


def _read_manifest(artefact: AdapterArtefact, digest: str | None, findings: Findings) -> Manifest | None:
    file = artefact.files.get(MANIFEST_NAME)
    if file is None:
        return None
    try:
        manifest = parse_manifest(file.read_all(max_bytes=MAX_MANIFEST_BYTES))
        # A file that was refused already is not read again to be hashed.
        if not findings.has("too_large"):
            findings.extend(verify_manifest(manifest, artefact, digest=digest))
    except AdapterFileError as error:
        findings.add("manifest_invalid", str(error), MANIFEST_NAME)
        return None
    return manifest


def _read_probe(artefact: AdapterArtefact, findings: Findings) -> Probe | None:
    file = artefact.files.get(PROBE_NAME)
    if file is None:
        return None
    try:
        return parse_probe(file.read_all(max_bytes=MAX_PROBE_BYTES))
    except AdapterFileError as error:
        findings.add("probe_invalid", str(error), PROBE_NAME)
        return None


def _check_base(
    config: AdapterConfig | None,
    manifest: Manifest | None,
    probe: Probe | None,
    target: TargetBase,
    problems: Findings,
    warnings: Findings,
) -> None:
    """Hold the base the adapter was trained on against the served one: by fingerprint, or else by name."""
    fingerprints = [
        (MANIFEST_NAME, manifest.base.fingerprint if manifest else None),
        (PROBE_NAME, probe.base_fingerprint if probe else None),
    ]
    for name, fingerprint in fingerprints:
        if fingerprint is None or fingerprint == target.fingerprint:
            continue
        if fingerprint in target.rounded.originals:
            if not warnings.has("base_quantised"):
                warnings.add("base_quantised", _say_quantised(fingerprint, probe, target), name)
        else:
            problems.add(
                "base_mismatch",
                f"By {name} the adapter belongs to a base with fingerprint "
                f"{ascii(fingerprint)[1:-1]}; the server has "
                f"{target.name} with {target.fingerprint}. Serve that base, or train on this one.",
                name,
            )
    if manifest is None and config is not None and config.base_name is not None:
        given = _last_part(config.base_name)
        if given not in (_last_part(target.name), _last_part(target.reference)):
            warnings.add(
                "base_name_differs",
                f"The adapter says it was trained on {config.base_name[:120]!a}; the server has "
                f"{target.name}. "
                "Names and shapes fit, but only a manifest can prove the base.",
                "base_model_name_or_path",
            )


def _say_quantised(fingerprint: str, probe: Probe | None, target: TargetBase) -> str:
    scheme = f" ({target.rounded.scheme})" if target.rounded.scheme else ""
    judged = (
        "its probe is judged by what quantising was measured to move"
        if probe is not None
        else "without a probe nothing but an effect at all is asked of it"
    )
    return (
        f"The adapter was made for {target.rounded.originals[fingerprint]}; the server has {target.name}, which "
        f"was quantised from it{scheme}. On loading, {judged}. For a proof on this very base: "
        "hotswap adapters export FOLDER --base QUANTISED --out NEW"
    )


def _last_part(reference: str) -> str:
    return reference.rstrip("/").rpartition("/")[2].lower()


def _warn_about_targets(
    config: AdapterConfig | None, tensors: Mapping[str, TensorEntry] | None, warnings: Findings
) -> None:
    targets = config.values["target_modules"] if config is not None else None
    if tensors is None or not isinstance(targets, list):
        return
    names = [name.module for name in map(parse_tensor_name, tensors) if name is not None]
    suffixes = {
        ".".join(parts[start:]) for parts in (n.split(".") for n in names) for start in range(len(parts))
    }
    for target in targets:
        if isinstance(target, str) and target not in suffixes:
            warnings.add(
                "target_without_weights",
                f"target_modules names {target[:80]!a}, but no weights belong to it: the base that "
                "was trained "
                "had no such module.",
                "target_modules",
            )


def _gather_facts(
    artefact: AdapterArtefact,
    config: AdapterConfig | None,
    tensors: Mapping[str, TensorEntry] | None,
    digest: str | None,
    manifest: Manifest | None,
    probe: Probe | None,
) -> AdapterFacts:
    modules = sorted({name.module for name in map(parse_tensor_name, tensors or ()) if name is not None})
    ranks = [config.rank_and_alpha(module)[0] for module in modules] if config is not None else []
    dtypes = sorted({entry.dtype for entry in (tensors or {}).values()})
    weights = artefact.files.get(WEIGHTS_NAME)
    return AdapterFacts(
        rank=max(ranks, default=config.rank) if config is not None else None,
        alpha=config.alpha if config is not None else None,
        rslora=config.rslora if config is not None else None,
        target_modules=tuple(sorted({ascii(m.rpartition(".")[2][:80])[1:-1] for m in modules})[:32]),
        num_modules=len(modules) if tensors is not None else None,
        num_tensors=len(tensors) if tensors is not None else None,
        num_parameters=sum(_num_values(entry) for entry in tensors.values()) if tensors is not None else None,
        num_bytes=weights.num_bytes if weights is not None else None,
        dtype="+".join(dtypes) or None,
        digest=digest,
        base_name=manifest.base.name if manifest else (config.base_name if config is not None else None),
        base_fingerprint=manifest.base.fingerprint if manifest else None,
        has_manifest=manifest is not None,
        has_probe=probe is not None,
        ignored_files=artefact.ignored_names,
    )


def _num_values(entry: TensorEntry) -> int:
    return entry.num_bytes // (4 if entry.dtype == "F32" else 2)
