"""What is checked before the long part: every problem at once, and what is worth knowing about the base."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bases.architecture import ArchitectureFacts, read_architecture
from bases.processor import available_memory_bytes
from bases.resolve import ResolvedBase, made_folder
from quantize.errors import PreflightError, QuantizeSettingsError
from quantize.needs import Needs, estimate_needs
from quantize.placed import PlacedBase
from quantize.plan import CPU_KERNEL_MULTIPLE, GROUP_SIZES, QuantisationPlan, default_group_size, make_plan
from quantize.recipe import ResolvedRecipe, read_recipe, recipe_of_scheme
from quantize.schemes.registry import find_scheme
from quantize.schemes.scheme import Scheme, SchemeOptions
from quantize.settings import DEFAULT_SCHEME, QuantizeSettings

_SHOWN_LAYERS = 4
_STORE_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Preflight:
    """What will be done, after all checks passed."""

    facts: ArchitectureFacts
    recipe: ResolvedRecipe
    plan: QuantisationPlan
    out: Path
    needs: Needs
    notes: tuple[str, ...]
    placed_by: str | None = None
    """Key of the run that put the base in `out` and was interrupted behind it."""


def check_run(base: ResolvedBase, settings: QuantizeSettings, *, home: Path) -> Preflight:
    """Everything that can be known before weights are read.

    Raises PreflightError with every problem, QuantizeSettingsError for a scheme or recipe that is none.
    """
    scheme = None if settings.recipe else find_scheme(settings.scheme or DEFAULT_SCHEME)
    facts = read_architecture(base.path)
    problems = [*_base_problems(base, facts)]
    out = settings.out or made_folder(home) / f"{base.name}-{_name(scheme, settings)}"
    placed_by = PlacedBase(home, out).key() if settings.resume and goes_on_behind(settings) else None
    may_exist = settings.force or placed_by is not None
    problems += _place_problems(out, base, may_exist=may_exist)
    if settings.layout == "gptq":
        problems += _place_problems(layout_folder(out), base, may_exist=may_exist)
    problems += [
        f"The calibration file {path} does not exist." for path in settings.data if not path.exists()
    ]
    options, wrong = _options(scheme, facts, settings)
    problems += wrong
    if facts.quant_method is not None or facts.num_experts:
        raise PreflightError(base.name, problems)
    recipe = _recipe(scheme, options, settings)
    plan = make_plan(base.path, recipe.modifiers())
    problems += _plan_problems(recipe, plan, layout=settings.layout)
    needs = estimate_needs(
        facts,
        plan,
        rows=settings.samples,
        row_tokens=settings.row_tokens,
        store_bytes=_STORE_BYTES[settings.store_dtype],
        resume=settings.resume,
    )
    problems += _resource_problems(needs, out, home)
    if problems:
        raise PreflightError(base.name, problems)
    return Preflight(facts, recipe, plan, out, needs, tuple(_notes(recipe, facts, plan, options)), placed_by)


def goes_on_behind(settings: QuantizeSettings) -> bool:
    """Whether something is made of the base after it is in its place."""
    return settings.recover or settings.layout == "gptq"


def layout_folder(out: Path) -> Path:
    """Where the same base lies in the GPTQ layout."""
    return out.with_name(f"{out.name}-gptq-layout")


def _name(scheme: Scheme | None, settings: QuantizeSettings) -> str:
    return scheme.name if scheme is not None else settings.recipe.stem if settings.recipe else DEFAULT_SCHEME


def _base_problems(base: ResolvedBase, facts: ArchitectureFacts) -> Iterator[str]:
    if facts.quant_method is not None:
        yield (
            f"{base.name} is quantised already ({facts.quant_method}). Rounding twice loses twice: "
            "give the base that it was made from."
        )
    if facts.num_experts:
        yield (
            f"{base.name} is a mixture of {facts.num_experts} experts, which is not supported yet: its experts are "
            "stacked tensors, not linear layers."
        )


def exists(out: Path) -> str:
    """What is said of an output folder that is there."""
    return f"{out} exists. Name another place with --out, or replace it with --force."


def _place_problems(out: Path, base: ResolvedBase, *, may_exist: bool) -> Iterator[str]:
    if out.exists() or out.is_symlink():
        if not out.is_dir() or out.is_symlink():
            yield f"{out} is in the way and not a folder. Name another place with --out."
        elif out.resolve() == base.path.resolve() or out.resolve() in base.path.resolve().parents:
            yield f"{out} is the base itself or holds it. Name another place with --out."
        elif not may_exist:
            yield exists(out)
        elif any(out.iterdir()) and not (out / "config.json").is_file():
            yield f"{out} is not a base: --force would remove what is in it. Name another place with --out."
    nearest = _nearest(out.parent)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        yield f"{nearest} cannot be written to. Name another place with --out."


def _options(
    scheme: Scheme | None, facts: ArchitectureFacts, settings: QuantizeSettings
) -> tuple[SchemeOptions, list[str]]:
    """The options of the scheme, and what is wrong with those given."""
    problems: list[str] = []
    widths = {inputs for inputs, _ in facts.linear_modules.values()}
    group = settings.group_size
    if scheme is not None and scheme.grouped:
        default = default_group_size(widths)
        if group is None and default is None:
            problems.append(
                f"None of the group sizes {', '.join(map(str, GROUP_SIZES))} divides the inputs of every layer "
                f"({', '.join(map(str, sorted(widths)))}). Leave layers out with a recipe, or choose int8-w8a8."
            )
        elif group is not None:
            problems += _group_problems(group, facts)
        group = group or default or GROUP_SIZES[-1]
    elif scheme is not None and group is not None:
        problems.append(f"{scheme.name} has one scale per output and no groups: leave --group-size out.")
    if scheme is not None and settings.asymmetric and not scheme.zero_points:
        problems.append(f"{scheme.name} has no zero points (vLLM has none for it): leave --asymmetric out.")
    if scheme is not None and settings.activation_order is not None and not scheme.ordered:
        problems.append(
            f"{scheme.name} has no activation order, which is GPTQ's: leave --activation-order out."
        )
    return (
        SchemeOptions(
            group_size=group,
            symmetric=not settings.asymmetric,
            activation_order="none" if settings.activation_order == "none" else "static",
            ignore=tuple(sorted(facts.embeddings)),
            scale_dtype=f"torch.{settings.store_dtype}",
        ),
        problems,
    )


def _group_problems(group: int, facts: ArchitectureFacts) -> Iterator[str]:
    widths = {inputs for inputs, _ in facts.linear_modules.values()}
    wrong = [(name, inputs) for name, (inputs, _) in facts.linear_modules.items() if inputs % group]
    if wrong:
        fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
        would = (
            f"{' or '.join(map(str, fitting))} would" if fitting else "none of 128, 64 and 32 would either"
        )
        yield f"Group size {group} does not divide the inputs of {_listed(wrong)}; {would}."
    elif group not in GROUP_SIZES:
        yield f"Group size {group} has no kernel in vLLM; it has {', '.join(map(str, sorted(GROUP_SIZES)))}."


def _recipe(scheme: Scheme | None, options: SchemeOptions, settings: QuantizeSettings) -> ResolvedRecipe:
    if scheme is not None:
        return recipe_of_scheme(scheme, options)
    if settings.recipe is None:
        raise QuantizeSettingsError("There is neither a scheme nor a recipe.")
    return read_recipe(settings.recipe)


def _plan_problems(recipe: ResolvedRecipe, plan: QuantisationPlan, *, layout: str) -> Iterator[str]:
    if not plan.layers:
        yield f"The recipe {recipe.name} rounds no linear layer of this base: check its targets and ignores."
    if plan.embeddings:
        yield (
            f"The recipe {recipe.name} would round {', '.join(plan.embeddings)}: embeddings stay as they are, "
            "tied or not. Put them under `ignore`."
        )
    wrong = [
        (layer.name, layer.inputs)
        for layer in plan.layers
        if layer.group_size is not None and layer.inputs % layer.group_size
    ]
    if wrong and recipe.scheme is None:
        yield f"The recipe's group size does not divide the inputs of {_listed(wrong)}."

    if layout == "gptq" and (plan.rounds_inputs or any(layer.group_size is None for layer in plan.layers)):
        yield (
            f"{recipe.name} has no form in the GPTQ layout, which holds integer weights with groups alone: leave "
            "--layout out, or choose gptq-w4a16 or gptq-w8a16."
        )


def _resource_problems(needs: Needs, out: Path, home: Path) -> Iterator[str]:
    free = available_memory_bytes()
    if free < needs.memory_bytes:
        yield (
            f"About {_gib(needs.memory_bytes)} of memory are needed and {_gib(free)} are free. Fewer --samples or "
            "shorter --row-tokens need less; otherwise use a machine with more."
        )
    places: dict[int, tuple[Path, int]] = {}
    for folder, size in ((out.parent, needs.disk_bytes), (home, needs.kept_bytes)):
        nearest = _nearest(folder)
        device = nearest.stat().st_dev
        first, before = places.get(device, (nearest, 0))
        places[device] = (first, before + size)
    for folder, size in places.values():
        space = shutil.disk_usage(folder).free
        if space < size:
            yield (
                f"About {_gib(size)} of disk are needed in {folder} and {_gib(space)} are free. Make room, or name "
                "another place with --out or HOTSWAP_HOME; --no-resume needs less."
            )


def _notes(
    recipe: ResolvedRecipe, facts: ArchitectureFacts, plan: QuantisationPlan, options: SchemeOptions
) -> Iterator[str]:
    groups = sorted({layer.group_size for layer in plan.layers if layer.group_size is not None})
    sized = f" in groups of {', '.join(map(str, groups))}" if groups else ""
    yield f"{len(plan.layers)} layers are rounded{sized}"
    tied = " (one tensor: they are tied)" if facts.tied_embeddings else ""
    yield f"{' and '.join(sorted(facts.embeddings))} stay unquantised{tied}"
    if plan.left_alone:
        yield f"also left alone: {', '.join(plan.left_alone[:_SHOWN_LAYERS])}" + (
            f" and {len(plan.left_alone) - _SHOWN_LAYERS} more"
            if len(plan.left_alone) > _SHOWN_LAYERS
            else ""
        )
    odd = [
        layer.name
        for layer in plan.layers
        if layer.inputs % CPU_KERNEL_MULTIPLE or layer.outputs % CPU_KERNEL_MULTIPLE
    ]
    if odd and groups:
        yield (
            f"vLLM's kernel for CPUs wants inputs and outputs in multiples of {CPU_KERNEL_MULTIPLE}; "
            f"{odd[0]} and {len(odd) - 1} other layers have not"
        )
    if recipe.scheme is not None and recipe.scheme.serving:
        yield f"{recipe.name} is {recipe.scheme.serving}"
    if plan.moves_scales:
        yield (
            f"{recipe.name} moves scales between layers, so adapters of the original do not fit the result: "
            "train them on it, or merge them in first"
        )
    if groups and not options.symmetric:
        yield "weights have zero points"


def _listed(layers: list[tuple[str, int]]) -> str:
    """Some layers by name with their inputs, the distinct kinds first."""
    kinds: dict[tuple[str, int], str] = {}
    for name, inputs in layers:
        kinds.setdefault((name.rpartition(".")[2], inputs), name)
    shown = [f"{name} ({inputs})" for (_, inputs), name in list(kinds.items())[:_SHOWN_LAYERS]]
    more = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {more} other layers" if more else "")


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest of its parents that exists."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
