"""Recipes of llm-compressor: made from a scheme or read from a file, resolved, and written beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantize.errors import QuantizeSettingsError
from quantize.schemes.scheme import Scheme, SchemeOptions

RECIPE_NAME = "recipe.yaml"
_SUPPORTED = frozenset({"AWQModifier", "GPTQModifier", "QuantizationModifier", "SmoothQuantModifier"})
_UNSERVED_ORDERS = frozenset({"group", "dynamic"})
_WRONG = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, ImportError)


@dataclass(frozen=True, slots=True)
class ResolvedRecipe:
    """What is done, with every value that the scheme or the file left open filled in."""

    name: str
    """Of the scheme; of a file, its name without ending."""
    scheme: Scheme | None
    text: str
    """YAML that llm-compressor reads: `--recipe` with it does the same again."""

    def modifiers(self) -> list[Any]:
        """Fresh modifiers: each serves one run alone."""
        return _parse(self.text, self.name)


def recipe_of_scheme(scheme: Scheme, options: SchemeOptions) -> ResolvedRecipe:
    """The recipe of a scheme with its options."""
    import yaml

    stage = {"default_stage": {"default_modifiers": scheme.modifiers(options)}}
    return ResolvedRecipe(scheme.name, scheme, _resolve(yaml.safe_dump(stage, sort_keys=False), scheme.name))


def read_recipe(path: Path) -> ResolvedRecipe:
    """The recipe in a YAML file. Raises QuantizeSettingsError for one that llm-compressor does not take."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QuantizeSettingsError(f"The recipe {path} cannot be read: {error}") from error
    return ResolvedRecipe(path.stem, None, _resolve(text, str(path)))


def _resolve(text: str, name: str) -> str:
    """`text` with the values that llm-compressor would fill in; what was set to null stays null."""
    import yaml

    modifiers = {
        type(modifier).__name__: {
            field: _plain(value)
            for field, value in modifier.model_dump().items()
            if (value is not None or field in modifier.model_fields_set)
            and not field.endswith("_")
            and field != "group"
            and type(value).__name__ != "Sentinel"  # "not given", where that is something else than null
        }
        for modifier in _parse(text, name)
    }
    stage = {"default_stage": {"default_modifiers": modifiers}}
    return str(yaml.safe_dump(stage, sort_keys=False, allow_unicode=True, width=100))


def _parse(text: str, name: str) -> list[Any]:
    import yaml
    from llmcompressor.recipe import Recipe

    try:
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise QuantizeSettingsError(f"The recipe {name} holds no YAML mapping of stages to modifiers.")
        modifiers = list(Recipe.from_dict(content).modifiers)
    except yaml.YAMLError as error:
        raise QuantizeSettingsError(f"The recipe {name} is not YAML: {error}") from error
    except _WRONG as error:
        raise QuantizeSettingsError(f"llm-compressor does not take the recipe {name}: {error}") from error
    if not modifiers:
        raise QuantizeSettingsError(
            f"The recipe {name} names no modifier. It wants `some_stage:` with `some_modifiers:` with, for "
            "example, `GPTQModifier:` and its arguments; the recipe.yaml of any quantised base is one."
        )
    kinds = [type(modifier).__name__ for modifier in modifiers]
    foreign = sorted(set(kinds) - _SUPPORTED)
    if foreign:
        raise QuantizeSettingsError(
            f"The recipe {name} names {', '.join(foreign)}; what is made and served here comes from "
            f"{', '.join(sorted(_SUPPORTED))}."
        )
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        raise QuantizeSettingsError(f"The recipe {name} names {', '.join(twice)} more than once.")
    if any(str(getattr(modifier, "actorder", None)) in _UNSERVED_ORDERS for modifier in modifiers):
        raise QuantizeSettingsError(
            f"The recipe {name} asks for `actorder: group`, which vLLM 0.32 loads no more for compressed-tensors. "
            "`actorder: static` rounds in the same order."
        )
    return modifiers


def _plain(value: Any) -> Any:
    """`value` in what YAML writes safely: enumerations as their value, tuples as lists, types as their name."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(getattr(value, "value", value))
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
