"""The README.md beside an adapter's weights: what it is, what it was made from, how to use it, where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.manifest import Manifest

_TEMPLATE = """\
---
{% if "/" in base_reference %}base_model: {{ base_reference }}
{% endif %}library_name: peft
tags:
- lora
- hotswap
---

# LoRA adapter {{ manifest.digest[:8] }} for {{ manifest.base.name }}

| | |
| --- | --- |
| base | `{{ base_reference }}` (fingerprint `{{ manifest.base.fingerprint[:16] }}`) |
| digest | `{{ manifest.digest }}` |
| method | {{ training.method or "not recorded" }} |
| rank | {{ rank }} |
| parameters | {{ "{:,}".format(num_parameters) }} |
| made | {{ manifest.created_at.strftime("%Y-%m-%d %H:%M UTC") }} |

## How close it is to what was trained

{% if export.is_exact -%}
Exact up to rounding: what is served computes what was trained.
{%- else -%}
Approximated: the change of the worst module is off by {{ "{:.2%}".format(export.max_relative_error) }} of its norm.
{%- endif %} Log probabilities of the trained model and of these files differ by at most
{{ "{:.1e}".format(export.trained_difference_nats) }} nats on the first cases of the probe.
{% for sentence in export.conversions %}
- {{ sentence }}
{%- endfor %}
{% for title, rows in sections %}
## {{ title }}

| | |
| --- | --- |
{% for key, value in rows -%}
| {{ key }} | {{ value }} |
{% endfor %}
{%- endfor %}
## Use

In a running Hotswap gateway, with this folder below its adapter root:

```bash
hotswap adapters check <this folder> --base <the base>
hotswap adapters load <name> <this folder, relative to the adapter root>
hotswap generate "..." --chat --adapter <name>
```

In PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{{ base_reference }}")  # a hub id, or the folder of the base
model = PeftModel.from_pretrained(base, "<this folder>")
```

## Limits

- It belongs to the base named above. The gateway compares fingerprints and refuses any other.
- It knows what the training data showed. The figures above were measured on data of the same kind; measure
  again on yours before relying on it.
- It changes linear layers alone; it adds no tokens and no layers.

Made with {% for name, number in manifest.libraries.items() %}{{ name }} {{ number }}{{ ", " if not loop.last }}\
{% endfor %}.
"""
_SECTIONS = (
    ("Joined adapters", "joined"),
    ("Data", "data"),
    ("Metrics", "metrics"),
    ("Settings", "settings"),
)
_MAX_ROWS = 60


def render_card(*, manifest: Manifest, base_reference: str, rank: int, num_parameters: int) -> str:
    """The card as Markdown, from the manifest of a finished adapter."""
    from jinja2 import Environment, StrictUndefined

    training = manifest.training
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    return environment.from_string(_TEMPLATE).render(
        manifest=manifest,
        training={"method": training.get("method")},
        export=training["export"],
        base_reference=base_reference,
        rank=rank,
        num_parameters=num_parameters,
        sections=[(title, rows) for title, key in _SECTIONS if (rows := _rows(training.get(key)))],
    )


def _rows(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted key, text), without machine paths, fit for a Markdown table."""
    if not isinstance(value, Mapping):
        return []
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            rows += _rows(item, f"{name}.")
        elif item is not None:
            rows.append((_cell(name), _cell(_shown(item))))
    return rows[:_MAX_ROWS]


def _shown(item: Any) -> str:
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, list):
        return ", ".join(_shown(part) for part in item)
    # A path of the trainer's machine means nothing elsewhere: its last part does.
    text = str(item)
    return text.rstrip("/").rpartition("/")[2] if text.startswith(("/", "~")) else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
