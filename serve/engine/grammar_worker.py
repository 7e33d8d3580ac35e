"""The process behind serve/engine/grammar.py: reads constraints, one JSON line each, and says whether they compile.

Run as `python -m serve.engine.grammar_worker TOKENIZER_FOLDER`. Bounded in memory by the operating system and in
time by its parent, which kills it.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from typing import Any

MAX_ADDRESS_SPACE_BYTES = 8 * 1024**3
# Some patterns compile at once and explode while they are matched: walk a while along allowed tokens.
WALK_TOKENS = 48
_PLACE = re.compile(r"^\[[0-9:]+\] \S+: ")


def main(tokenizer_path: str) -> None:
    """Answer each line on standard input with {"reason": null | text}."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE_BYTES, MAX_ADDRESS_SPACE_BYTES))
    import xgrammar
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            _walk(xgrammar, info, _compile(compiler, asked["kind"], asked["value"]))
        except (RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
            _say({"reason": _reason(error)})
        else:
            _say({"reason": None})


def _compile(compiler: Any, kind: str, value: Any) -> Any:
    if kind == "json_schema":
        return compiler.compile_json_schema(value)
    if kind == "regex":
        return compiler.compile_regex(value)
    quoted = [json.dumps(choice, ensure_ascii=False) for choice in value]
    return compiler.compile_grammar("root ::= " + " | ".join(quoted))


def _walk(xgrammar: Any, info: Any, compiled: Any) -> None:
    matcher = xgrammar.GrammarMatcher(compiled)
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    for _ in range(WALK_TOKENS):
        if matcher.is_terminated():
            return
        matcher.fill_next_token_bitmask(mask)
        words = mask[0].tolist()
        allowed = next(
            (32 * i + bit for i, word in enumerate(words) if word for bit in range(32) if word >> bit & 1),
            None,
        )
        if allowed is None:
            raise ValueError("no answer can ever be complete: after some texts nothing may follow")
        if not matcher.accept_token(allowed):
            return


def _reason(error: BaseException) -> str:
    """The first line of what the compiler says, without where in its sources it says so."""
    first = (str(error).strip().splitlines() or ["it is not valid"])[0]
    return _PLACE.sub("", first)[:300]


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol with the parent


if __name__ == "__main__":
    main(sys.argv[1])
