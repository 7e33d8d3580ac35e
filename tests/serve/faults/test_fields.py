"""Rows 3 to 9: fields that do not exist, values out of bounds, prompts that do not fit."""

from __future__ import annotations

import threading
from typing import Any

from serve.engine.scripted import ScriptedCodec, ScriptedEngine
from tests.serve.faults.client import REPLY_SECONDS, refusal, resident_mib, strangers, undisturbed

GENERATE = {"prompt": "a"}
COMPLETION = {"model": "scripted", "prompt": "a"}
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "a"}]}
ROUTES: dict[str, dict[str, Any]] = {
    "/generate": GENERATE,
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": CHAT,
}


async def refuse_all(
    server, cases: list[tuple[str, dict[str, Any], str]], status: int = 422
) -> list[tuple[str, dict[str, Any]]]:
    """Send each (route, body, field) and check that it is refused in the name of that field."""
    errors = []
    async with undisturbed(server):
        for route, body, field in cases:
            case = f"{route} {field} {str(body)[:80]}"
            answer = await server.client.post(route, json=body)
            error = refusal(answer, case)
            assert answer.status_code == status, f"{case}: {error}"
            assert field in (error["param"] or "") or field in error["message"], f"{case}: {error}"
            assert answer.elapsed.total_seconds() < REPLY_SECONDS, case
            errors.append((case, error))
    assert strangers(server) == []
    return errors


async def test_b5_03_a_field_that_does_not_exist_is_named_and_refused(running_server):
    fields = (
        "prompt_embeds",
        "chat_template",
        "api_base",
        "lora_path",
        "lora_request",
        "image_url",
        "mm_processor_kwargs",
        "cache_salt",
        "kv_transfer_params",
        "documents",
        "request_id",
        "session_id",
        "logprob_token_ids",
        "truncate_prompt_tokens",
    )
    cases = [(route, {**good, field: "x"}, field) for route, good in ROUTES.items() for field in fields]
    cases += [
        ("/generate", {"messages": [{"role": "user", "content": "a", "lora_path": "x"}]}, "lora_path"),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "image_url",
        ),
        ("/admin/adapters", {"name": "a", "source": "a", "path": "/"}, "path"),
    ]
    await refuse_all(await running_server(), cases)


async def test_b5_04_what_is_asked_for_in_masses_is_refused_with_the_cap(running_server):
    caps: dict[str, tuple[Any, str]] = {
        "n": (10**9, "16"),
        "best_of": (10**9, "not a field"),
        "stop": (["a"] * 100_000, "16"),
    }
    cases = [
        (route, {**good, field: v}, field) for route, good in ROUTES.items() for field, (v, _) in caps.items()
    ]
    for case, error in await refuse_all(await running_server(), cases):
        field = error["param"].split(".")[0]
        assert caps[field][1] in error["message"], f"{case}: {error}"


async def test_b5_04_huge_stops_biases_and_foreign_token_ids_are_refused(running_server):
    openai: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", COMPLETION),
        ("/v1/chat/completions", CHAT),
    ]
    cases = [(route, {**good, "stop": "s" * 1_000_000}, "256 characters") for route, good in ROUTES.items()]
    cases += [(r, {**g, "logit_bias": {str(i): 1 for i in range(100_000)}}, "at most 300") for r, g in openai]
    cases += [(r, {**g, "logit_bias": {"-1": 1}}, "logit_bias") for r, g in openai]
    cases += [(r, {**g, "logit_bias": {"256": 1}}, "256 tokens") for r, g in openai]
    cases += [
        ("/v1/completions", {**COMPLETION, "prompt": [256]}, "256 tokens"),
        ("/v1/completions", {**COMPLETION, "stop_token_ids": [256]}, "256 tokens"),
        ("/v1/chat/completions", {**CHAT, "allowed_token_ids": [256]}, "256 tokens"),
        ("/v1/chat/completions", {**CHAT, "stop_token_ids": [1] * 100_000}, "at most 64"),
        (
            "/v1/chat/completions",
            {**CHAT, "chat_template_kwargs": {f"a{i}": [1] for i in range(50_000)}},
            "at most 16",
        ),
        ("/v1/chat/completions", {**CHAT, "bad_words": ["a" * 256] * 2}, "at most 512"),
        ("/v1/completions", {**COMPLETION, "prompt": [[1], [10**9]]}, "256 tokens"),
        ("/v1/completions", {**COMPLETION, "prompt": [-1]}, "prompt.0"),
        ("/v1/completions", {**COMPLETION, "prompt": [2**63]}, "prompt.0"),
        ("/v1/completions", {**COMPLETION, "prompt": [[]]}, "prompt.0"),
        ("/v1/completions", {**COMPLETION, "prompt": ["a"] * 129}, "128"),
        ("/generate", {"prompt": ["a"] * 129}, "128"),
        ("/generate", {"messages": [{"role": "user", "content": ""}] * 1025}, "1024"),
    ]
    await refuse_all(await running_server(), cases)


async def test_b5_05_max_tokens_is_a_whole_number_within_bounds(running_server):
    cases: list[tuple[str, dict[str, Any], str]] = []
    values: tuple[Any, ...] = (0, -1, 10**12, True, "5", 1.5, [1], {})
    for value in values:
        cases += [(route, {**good, "max_tokens": value}, "max_tokens") for route, good in ROUTES.items()]
        chat = {**CHAT, "max_completion_tokens": value}
        cases.append(("/v1/chat/completions", chat, "max_completion_tokens"))
    await refuse_all(await running_server(), cases)


async def test_b5_06_sampling_values_out_of_bounds_are_refused(running_server):
    bad: list[tuple[str, Any]] = [
        ("temperature", -1),
        ("temperature", 1e308),
        ("temperature", 2.001),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", -0.1),
        ("top_p", 1.01),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("presence_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("frequency_penalty", 3),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("repetition_penalty", 11),
        ("seed", 2**70),
        ("seed", -1),
        ("stream", "yes"),
        ("ignore_eos", 1),
    ]
    cases = [(route, {**good, name: value}, name) for route, good in ROUTES.items() for name, value in bad]
    await refuse_all(await running_server(), cases)


async def test_b5_07_a_request_beyond_the_context_is_refused_with_both_numbers(running_server):
    server = await running_server()
    long = "x" * 4090
    cases = [
        ("/generate", {"prompt": long, "max_tokens": 7}, ("4096", "4090", "7")),
        ("/generate", {"prompt": "x" * 4096}, ("4096",)),
        ("/generate", {"prompt": "x" * 500_000}, ("4096", "500000")),
        ("/generate", {"prompt": ["a", "x" * 500_000]}, ("4096", "500000")),
        ("/generate", {"messages": [{"role": "user", "content": "x" * 500_000}]}, ("4096", "500000")),
        ("/v1/completions", {**COMPLETION, "prompt": long, "max_tokens": 7}, ("4096", "4090", "7")),
        ("/v1/completions", {**COMPLETION, "prompt": "x" * 500_000}, ("4096", "500000")),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": "x" * 500_000}]},
            ("4096", "500000"),
        ),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 4096}, ("4096",)),
    ]
    async with undisturbed(server):
        for route, body, numbers in cases:
            answer = await server.client.post(route, json=body)
            error = refusal(answer, route)
            assert (answer.status_code, error["code"]) == (400, "context_length_exceeded"), (
                f"{route}: {error}"
            )
            assert all(number in error["message"] for number in numbers), error["message"]
            assert "xxx" not in error["message"]
            assert answer.elapsed.total_seconds() < REPLY_SECONDS
    assert strangers(server) == []


class WatchedCodec(ScriptedCodec):
    """Notes in which thread long texts are encoded; its tokens may be long, so that long texts could fit."""

    longest_token_chars = 100
    special_ids: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.long_texts: list[tuple[int, threading.Thread]] = []

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        if len(text) > 1000:
            self.long_texts.append((len(text), threading.current_thread()))
        return super().encode(text[::100], parse_special=parse_special)


async def test_b5_07_a_text_that_cannot_fit_is_not_tokenised_and_a_long_one_not_on_the_event_loop(
    running_server,
):
    engine = ScriptedEngine()
    codec = WatchedCodec()
    engine.codec = codec
    server = await running_server(engine=engine)
    too_long = await server.client.post("/generate", json={"prompt": "x" * (4096 * 100 + 1)})
    assert too_long.status_code == 400
    assert codec.long_texts == []
    fits = await server.client.post("/generate", json={"prompt": "x" * 300_000, "max_tokens": 1})
    assert fits.status_code == 200
    [(num_chars, thread)] = codec.long_texts
    assert num_chars == 300_000
    assert thread is not threading.current_thread()


async def test_b5_08_an_empty_prompt_is_refused(running_server):
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/generate", {"prompt": ""}, "prompt"),
        ("/generate", {"prompt": ["a", ""]}, "prompt.1"),
        ("/generate", {"prompt": []}, "prompt"),
        ("/generate", {"messages": []}, "messages"),
        ("/generate", {}, "prompt"),
        ("/generate", {"prompt": None, "messages": None}, "prompt"),
        ("/generate", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/v1/completions", {**COMPLETION, "prompt": ""}, "prompt"),
        ("/v1/completions", {**COMPLETION, "prompt": []}, "prompt"),
        ("/v1/chat/completions", {**CHAT, "messages": []}, "messages"),
    ]
    await refuse_all(await running_server(), cases)


class SpecialCodec(ScriptedCodec):
    """Reads `<|im_end|>` as token 0 where special tokens count as such."""

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        return super().encode(
            text.replace("<|im_end|>", "\0") if parse_special else text, parse_special=False
        )


async def test_b5_08_blank_and_special_token_texts_are_texts(running_server):
    engine = ScriptedEngine()
    engine.codec = SpecialCodec()
    server = await running_server(engine=engine)
    for prompt, options, tokens in [
        ("  ", {}, b"  "),
        ("<|im_end|>", {}, b"<|im_end|>"),
        ("<|im_end|>", {"parse_special": True}, b"\0"),
    ]:
        answer = await server.client.post("/generate", json={"prompt": prompt, "max_tokens": 1, **options})
        assert answer.status_code == 200
        assert bytes(engine.requests[-1].prompt_token_ids) == tokens


async def test_b5_09_log_probabilities_are_capped(running_server):
    server = await running_server()
    before = resident_mib()
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/generate", {**GENERATE, "logprobs": value}, "logprobs") for value in (10**6, 21, -1, True, 1.5)
    ]
    cases += [("/v1/completions", {**COMPLETION, "logprobs": v}, "logprobs") for v in (10**6, 21, -1)]
    cases += [("/v1/chat/completions", {**CHAT, "top_logprobs": v}, "top_logprobs") for v in (10**6, 21, -1)]
    cases += [(route, {**good, "prompt_logprobs": -1}, "prompt_logprobs") for route, good in ROUTES.items()]
    await refuse_all(server, cases)
    assert resident_mib() - before < 32
