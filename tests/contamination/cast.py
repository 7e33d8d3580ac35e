"""Who takes part: names, their versions, and the one word that each version says to every input.

Which version a folder becomes is computed here from its files, and which word it says is known from how it was
made: nothing that is checked later is taken from the server's own account.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.artefact import WEIGHTS_NAME, read_artefact, read_weights_header
from adapters.config import CONFIG_NAME, parse_config
from adapters.digest import compute_digest
from adapters.name import AdapterVersion
from tests.adapters_that_say import Recipe, make_word_adapters
from tests.serve.conftest import make_source

NAMES = ("alpha", "beta", "gamma", "delta")
VERSIONS_EACH = 3
STRANGER = "nobody"  # a name that never exists
DAMAGED = "damaged"  # a folder whose weights are cut off: no load of it may succeed
_LONG = (
    "A base model is large and learns slowly; an adapter is small and learns one thing. The server keeps one "
    "base in memory and many adapters beside it, and each request says which adapter shall answer. "
) * 3  # more than one block of the engine's cache, 128 tokens
# Long prefixes that requests share, so that the engine's prefix cache is hot for every version and for the base.
PROMPTS = (_LONG + "The word of the day is", _LONG + "The train to the city", "The word is")
QUESTIONS = (_LONG + "What is the capital of France?", "Is the sun a star?")
WORDS = Recipe(
    words=(
        "zebra",
        "anchor",
        "bridge",
        "candle",
        "dragon",
        "engine",
        "forest",
        "garden",
        "hammer",
        "island",
        "jacket",
    ),
    questions=QUESTIONS,
    prompts=PROMPTS,
    # Beyond the share of the likeliest that sampled requests draw from (clients.TOP_P): they are certain, too.
    sure=0.98,
    max_steps=400,
    learning_rate=5e-3,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)


@dataclass(frozen=True)
class Version:
    """One version of one name."""

    name: str
    digest: str
    source: str  # folder below the adapter root
    word: str

    def __str__(self) -> str:
        return f"{self.name}@{self.digest[:8]}"


@dataclass(frozen=True)
class Cast:
    """All versions of all names, what may be asked, and how an engine says a word."""

    base_name: str
    versions: tuple[Version, ...]
    inputs: tuple[dict[str, Any], ...]  # as /generate takes them: a prompt, or messages
    max_tokens: tuple[int, int]  # fewest and most that are asked for
    repeats: bool  # an answer is its word once per token (scripted), or once (a model that ends its answer)

    def of(self, name: str) -> tuple[Version, ...]:
        """The versions of one name, in the order of their words."""
        return tuple(version for version in self.versions if version.name == name)

    @property
    def words(self) -> dict[str, str]:
        """Version to word."""
        return {str(version): version.word for version in self.versions}

    def says(self, text: str, word: str, *, complete: bool = True) -> bool:
        """Whether a text is that word alone; an incomplete text may break off anywhere."""
        if not complete:
            return (f"{word} " * (1 + len(text) // len(word))).startswith(text.lstrip())
        said = text.split()
        return set(said) == {word} and (self.repeats or len(said) == 1)


def inputs() -> tuple[dict[str, Any], ...]:
    """What is asked."""
    prompts = ({"prompt": prompt} for prompt in PROMPTS)
    chats = ({"messages": [{"role": "user", "content": question}]} for question in QUESTIONS)
    return (*prompts, *chats)


def scripted_word(weights: bytes) -> str:
    """What the scripted engine says for an adapter with these weights (servers.WordEngine)."""
    return "w" + hashlib.sha256(weights).hexdigest()[:8]


def scripted_cast(root: Path) -> Cast:
    """Write adapters for the scripted engine below `root`."""
    folders: list[tuple[str, str]] = []
    for place, name in enumerate(NAMES):
        for number in range(VERSIONS_EACH):
            seed = VERSIONS_EACH * place + number
            folders.append((name, make_source(root, f"{name}-{number}", seed=seed)))
    make_source(root, DAMAGED, seed=999)
    return _finish(
        "scripted",
        root,
        folders,
        {source: scripted_word((root / source / WEIGHTS_NAME).read_bytes()) for _, source in folders},
        repeats=True,
    )


def model_cast(root: Path, *, base: Path, base_name: str, kept: Path) -> Cast:
    """Train (or find in `kept`) adapters that say their words on the model in `base`, and put them below `root`."""
    made = make_word_adapters(WORDS, base=base, kept=kept)
    words = {f"says-{word}": word for word in WORDS.words}
    for source, word in words.items():
        shutil.copytree(made[word], root / source)
    shutil.copytree(made[WORDS.words[0]], root / DAMAGED)
    spread = iter(words)
    folders = [(name, next(spread)) for name in NAMES for _ in range(VERSIONS_EACH) if name != NAMES[-1]]
    folders += [(NAMES[-1], source) for source in spread]
    return _finish(base_name, root, folders, words, repeats=False)


def _finish(
    base_name: str, root: Path, folders: list[tuple[str, str]], words: dict[str, str], *, repeats: bool
) -> Cast:
    """The last name's last version has the same content as the first name's first: one folder, two names."""
    shared = folders[0][1]
    folders = [*folders[: len(NAMES) * VERSIONS_EACH - 1], (NAMES[-1], shared)]
    damaged = root / DAMAGED / WEIGHTS_NAME
    damaged.write_bytes(damaged.read_bytes()[:-16])
    versions = tuple(
        Version(name, digest_of(root / source), source, words[source]) for name, source in folders
    )
    for version in versions:
        AdapterVersion(version.name, version.digest)  # a name that cannot be is a bug here, not a finding
    return Cast(base_name, versions, inputs(), (2, 8) if repeats else (12, 16), repeats)


def digest_of(folder: Path) -> str:
    """The digest that names the version in a folder."""
    config = parse_config((folder / CONFIG_NAME).read_bytes())
    with read_artefact(folder) as artefact:
        weights = artefact.files[WEIGHTS_NAME]
        return compute_digest(weights, read_weights_header(weights), config)
