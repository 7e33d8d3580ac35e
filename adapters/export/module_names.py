"""From a module's name in a wrapped, trained model to its name in the served base."""

from __future__ import annotations

from collections.abc import Collection

from adapters.tensor_name import PREFIX

# Put into names by torch.compile, FSDP, activation checkpointing and DistributedDataParallel.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"})
# transformers moved the text part of models that also see; the same layers under another name.
_MOVED = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.", ""),
    ("model.", "model.language_model."),
)


def served_name(name: str, linear_modules: Collection[str]) -> str | None:
    """The served base's name of the module `name`, or None where it is no linear module of that base."""
    plain = plain_name(name)
    if plain in linear_modules:
        return plain
    for old, new in _MOVED:
        if plain.startswith(old) and (moved := new + plain.removeprefix(old)) in linear_modules:
            return moved
    return None


def plain_name(name: str) -> str:
    """`name` without PEFT's prefix, PEFT's base layer and the parts that wrappers put in."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(parts).removeprefix(PREFIX).removesuffix(".base_layer")
