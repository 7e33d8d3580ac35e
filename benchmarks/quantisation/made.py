"""The bases and adapters of a report: those that are there are taken, the others are made.

Merged: the base with the adapter merged in, and its quantised forms. Plain: the base itself and its quantised
forms, on which the adapter is put, alone and composed with the recovery adapter of a 4-bit form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterNameError, AdapterNotFoundError
from adapters.published import find_adapter
from bases.lineage import read_lineage
from bases.passport import read_passport
from bases.resolve import made_folder, resolve_base
from bases.weights import weight_files
from benchmarks.quantisation.commands import hotswap
from benchmarks.quantisation.errors import MadeBaseError
from benchmarks.quantisation.figures import Made, MadeAdapter, MadeForm
from benchmarks.quantisation.fleet import Say
from benchmarks.quantisation.plan import ReportPlan

ADAPTER = "adapter"
RECOVERY = "recovery"
RECOVERED = "recovered"
RECOVERED_SCHEMES = ("gptq-w4a16", "awq-w4a16", "rtn-w4a16")


class Maker:
    """Finds or makes everything for one plan; `before` knows how long it took to make what is there."""

    def __init__(self, plan: ReportPlan, before: Made | None, say: Say) -> None:
        self._plan = plan
        forms = (*before.merged, *before.plain) if before is not None else ()
        self._seconds = {form.fingerprint: form.seconds for form in forms}
        self._say = say
        self._notes: list[str] = []

    def make(self, *, may_make: bool) -> Made:
        """Everything. With `may_make` False a missing piece is a MadeBaseError, and takes no time."""
        plan = self._plan
        adapter = self._adapter()
        base = self._form(plan.base, None)
        merged_folder = plan.made.get("merged/original") or self._beside(base, adapter.name)
        if not merged_folder.is_dir():
            self._need(may_make, f"the base with {adapter.name} merged in", merged_folder)
            hotswap(
                *("adapters", "merge", adapter.folder, "--base", plan.base, "--out", str(merged_folder)),
                home=plan.home,
                say=self._say,
            )
        merged = self._form(str(merged_folder), None)
        forms = self._forms("plain", base, may_make=may_make)
        self._notes += [
            f"{form.name}: {form.scheme} moves scales between layers, so that adapters of {base.name} do not fit "
            "it and none is put on top"
            for form in forms
            if not form.takes_adapters
        ]
        recovery = self._recovery(base, forms)
        return Made(
            merged=(merged, *self._forms("merged", merged, may_make=may_make)),
            plain=(base, *forms),
            adapter=adapter,
            recovery=recovery,
            recovered={
                str(form.scheme): self._recovered(form, made, adapter, may_make=may_make)
                for form in forms
                if form.takes_adapters and (made := recovery.get(str(form.scheme))) is not None
            },
            notes=tuple(self._notes),
        )

    def _adapter(self) -> MadeAdapter:
        plan = self._plan
        given = plan.made.get(ADAPTER)
        try:
            found = find_adapter(str(given or plan.adapter), home=plan.home)
        except (AdapterNameError, AdapterNotFoundError) as error:
            raise MadeBaseError(f"--adapter {plan.adapter}: {error}") from None
        return _read_adapter(found.folder, found.name)

    def _forms(self, subject: str, original: MadeForm, *, may_make: bool) -> list[MadeForm]:
        plan, found = self._plan, []
        for scheme in plan.schemes:
            name = f"{subject}/{scheme}"
            folder = plan.made.get(name) or self._beside(original, scheme)
            seconds = None
            if not folder.is_dir():
                self._need(may_make, f"{scheme} of {original.name}", folder)
                seconds = self._quantise(subject, original, scheme, folder)
            found.append(self._form(str(folder), scheme, original=original, seconds=seconds))
        return found

    def _quantise(self, subject: str, original: MadeForm, scheme: str, folder: Path) -> float:
        plan = self._plan
        options = [option for path in plan.calibration for option in ("--data", str(path))]
        if plan.recover and subject == "plain" and scheme in RECOVERED_SCHEMES:
            options += ["--recover", "--recover-name", recovery_name(original.name, scheme)]
        return hotswap(
            *(
                "quantize",
                plan.base if subject == "plain" else original.folder,
                "--scheme",
                scheme,
                "--out",
                str(folder),
                *options,
            ),
            home=plan.home,
            say=self._say,
        )

    def _recovery(self, base: MadeForm, forms: Sequence[MadeForm]) -> dict[str, MadeAdapter]:
        """The recovery adapters that are there; a note for each that is not, which may mean that it did not pay."""
        plan, found = self._plan, {}
        for scheme in (str(form.scheme) for form in forms):
            if not plan.recover or scheme not in RECOVERED_SCHEMES:
                continue
            given = plan.made.get(f"recovery/{scheme}")
            name = recovery_name(base.name, scheme)
            try:
                folder = given or find_adapter(name, home=plan.home).folder
            except AdapterNotFoundError:
                self._notes.append(
                    f"there is no recovery adapter {name!r} for {scheme}: either it did not pay and was not "
                    f"published, or nobody made it (`hotswap quantize ... --recover --recover-name {name}`)"
                )
                continue
            found[scheme] = _read_adapter(folder, RECOVERY)
        return found

    def _recovered(
        self, form: MadeForm, recovery: MadeAdapter, adapter: MadeAdapter, *, may_make: bool
    ) -> MadeAdapter:
        """The task's adapter composed with the recovery adapter of a form."""
        plan = self._plan
        parts = "-".join(each[:8] for each in (recovery.digest, adapter.digest, form.fingerprint))
        folder = plan.home / "benchmarks" / "composed" / f"{adapter.name}-{parts}"
        if not folder.is_dir():
            self._need(may_make, f"{adapter.name} composed with the recovery of {form.name}", folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            hotswap(
                *("adapters", "compose", recovery.folder, adapter.folder, "--base", form.folder),
                *("--out", str(folder)),
                home=plan.home,
                say=self._say,
            )
        return _read_adapter(folder, RECOVERED)

    def _form(
        self,
        reference: str,
        scheme: str | None,
        *,
        original: MadeForm | None = None,
        seconds: float | None = None,
    ) -> MadeForm:
        base = resolve_base(reference, home=self._plan.home, progress=self._say)
        fingerprint = read_passport(base, home=self._plan.home, progress=self._say).fingerprint
        fits = original is None or _check_made_from(base.path, original, str(scheme))
        return MadeForm(
            folder=str(base.path),
            name=base.name,
            fingerprint=fingerprint,
            scheme=scheme,
            takes_adapters=fits,
            disk_bytes=sum(file.stat().st_size for file in weight_files(base.path)),
            seconds=seconds if seconds is not None else self._seconds.get(fingerprint),
        )

    def _beside(self, original: MadeForm, what: str) -> Path:
        """Where `hotswap quantize` and `hotswap adapters merge` put what they make, unless told otherwise."""
        return made_folder(self._plan.home) / f"{original.name}-{what}"

    def _need(self, may_make: bool, what: str, folder: Path) -> None:
        if not may_make:
            raise MadeBaseError(f"{what} is not in {folder}; add `make` to --parts, or name it with --made")


def recovery_name(base_name: str, scheme: str) -> str:
    """What the recovery adapter of a quantised base is published under."""
    return f"recovery-{base_name}-{scheme}".lower()


def _check_made_from(folder: Path, original: MadeForm, scheme: str) -> bool:
    """Whether adapters of the original fit the form in `folder`. Raises MadeBaseError for another base's form."""
    lineage = read_lineage(folder)
    step = lineage.steps[-1] if lineage is not None else None
    if lineage is None or step is None or step.parent.fingerprint != original.fingerprint:
        raise MadeBaseError(
            f"{folder} was not made by quantising {original.name} ({original.fingerprint[:12]}); remove it, or "
            "name the right folder with --made"
        )
    if step.scheme != scheme:
        raise MadeBaseError(
            f"{folder} was made with {step.scheme!r}, not with {scheme!r}; remove it, or name another with --made"
        )
    return original.fingerprint in lineage.stands_in_for()


def _read_adapter(folder: Path, name: str) -> MadeAdapter:
    if not (folder / CONFIG_NAME).is_file():
        raise MadeBaseError(f"{folder} holds no {CONFIG_NAME}: it is no adapter")
    report = check_adapter(folder, target=None)
    if not report.ok or report.facts.digest is None:
        raise MadeBaseError(f"{folder} is no whole adapter: {'; '.join(p.message for p in report.problems)}")
    return MadeAdapter(name=name, folder=str(folder), digest=report.facts.digest, rank=report.facts.rank or 8)
