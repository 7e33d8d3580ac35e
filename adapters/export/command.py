"""`hotswap adapters export`: an adapter made elsewhere, in the form that is served. Light to import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapters.errors import ExportError
from adapters.export.settings import ExportSettings
from adapters.manifest import describe_validation_error
from adapters.probe import read_probe

if TYPE_CHECKING:
    from adapters.export.report import ExportReport
    from bases.passport import Passport
    from bases.resolve import ResolvedBase

# Asked for the probe where no prompts are given: both languages of the data clean-up, several kinds of text.
DEFAULT_PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the weather today.",
    "Summarise: the meeting was moved from Monday to Wednesday.",
    "Is the following message a complaint or a question? The parcel has not arrived.",
    "Give the risk level of this payment from 0 to 5: 9,800 USD to a new payee at 3 a.m.",
    "List three colours.",
    "Translate to German: good morning.",
    "def add(first, second):",
    "Extract the date: the invoice is due on 12 March 2024.",
    "Answer with yes or no: is the sun a star?",
    "Once upon a time",
    "Dear customer, thank you for",
    "请用一句话介绍北京。",
    "这笔转账的风险等级是多少？凌晨三点，向新收款人转账五万元。",
    "把下面的句子翻译成英文：今天天气很好。",
    "总结：会议从周一改到周三。",
    "What is 12 plus 30?",
    "Name the author of Hamlet.",
    "Rewrite politely: send me the file now.",
    "Which of these is a fruit: chair, apple, stone?",
    "The patient should take this medicine",
    "Explain in one sentence what a bank does.",
    'Return JSON with the keys "name" and "city" for: Anna lives in Rome.',
    "Complete: the opposite of cold is",
)


def export_folder(
    folder: Path,
    *,
    base: str,
    out: Path,
    initial: Path | None = None,
    prompts: Path | None = None,
    given: dict[str, Any] | None = None,
    say: Callable[[str], None],
) -> ExportReport:
    """Write the adapter or fine-tuned model in `folder` to the new folder `out` as it can be served on `base`.

    `initial` is the adapter before the first step, for initialisations that change the base. `prompts` is a text
    file with one prompt a line for the probe, best like those that will be asked; without it those of the probe
    that lies in `folder` come first. `given` are flags of
    ExportSettings, None where not given. Raises HotswapError with the message for the user.
    """
    from adapters.export.export import check_place, export_adapter
    from adapters.export.load import load_trained
    from bases.passport import read_passport
    from bases.resolve import resolve_base
    from bases.settings import BasesSettings

    settings = read_settings(given or {})
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder. Give what save_pretrained wrote.")
    check_place(out)
    home = BasesSettings().home
    resolved = resolve_base(base, home=home, progress=say)
    passport = read_passport(resolved, home=home, progress=say)
    say("Reading what was trained")
    model = load_trained(folder, base=resolved, initial_adapter_folder=initial)
    say("Writing it and trying it on the base")
    return export_adapter(
        model,
        method=_method_of(model),
        base=resolved,
        passport=passport,
        folder=out,
        probe_prompts=[
            *(() if prompts is not None else _own_prompts(folder, resolved, passport)),
            *encode_prompts(_read_prompts(prompts), resolved),
        ],
        training={"source": folder.resolve().name},
        initial_adapter_folder=initial,
        **settings.model_dump(),
    )


def read_settings(given: dict[str, Any]) -> ExportSettings:
    """The settings with the flags that were given; raise ExportError for values that they may not have."""
    try:
        return ExportSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ExportError(
            f"The settings of the export are wrong: {describe_validation_error(error)}"
        ) from None


def describe(report: ExportReport) -> list[str]:
    """The report as lines for a terminal."""
    exact = "exact up to rounding" if report.is_exact else f"largest error {report.max_relative_error:.2%}"
    lines = [f"{report.folder} holds {report.digest[:8]}: rank {report.rank}, {exact}"]
    lines += [f"- {sentence}" for sentence in report.conversions]
    if not report.is_exact:
        worst = sorted(report.module_errors.items(), key=lambda item: -item[1])[:3]
        lines.append("- worst modules: " + ", ".join(f"{name} {error:.2%}" for name, error in worst))
    lines.append(
        f"Log probabilities differ from the trained model's by at most {report.trained_difference_nats:.1e} nats "
        f"where the adapter moves them by up to {report.effect_nats:.2f}."
    )
    return lines


def _read_prompts(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return DEFAULT_PROMPTS
    try:
        lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"The prompts in {path} cannot be read as UTF-8 text: {error}") from error
    if not lines:
        raise ExportError(f"{path} holds no prompts. Write one a line.")
    return lines


def _own_prompts(folder: Path, base: ResolvedBase, passport: Passport) -> list[list[int]]:
    """The prompts (token ids) of the probe in `folder`, where it was recorded on this base or on its original."""
    from adapters.target import describe_target

    probe = read_probe(folder)
    known = {passport.fingerprint, *describe_target(base, passport).rounded.originals}
    if probe is None or probe.base_fingerprint not in known:
        return []
    return [case.prompt_token_ids for case in probe.cases]


def encode_prompts(prompts: Sequence[str], base: ResolvedBase) -> list[list[int]]:
    """As the gateway encodes them: through the chat template where the base has one."""
    from transformers import AutoTokenizer

    from bases.codec import TokenizerCodec

    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    codec = TokenizerCodec(tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        return [codec.encode(prompt, parse_special=False) for prompt in prompts]
    return [codec.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]


def _method_of(model: Any) -> str:
    """The method's name from the model itself, for the manifest."""
    if not hasattr(model, "peft_config"):
        return "full"
    config = model.peft_config[model.active_adapter]
    kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
    initialisation = getattr(config, "init_lora_weights", True)
    extras = [
        initialisation if isinstance(initialisation, str) else "",
        "dora" if getattr(config, "use_dora", False) else "",
        "rslora" if getattr(config, "use_rslora", False) else "",
    ]
    return "+".join([kind, *(extra for extra in extras if extra)])
