"""vLLM in this process: AsyncLLM here, its engine core in a process of its own.

A VllmEngine lives once. VllmEngines makes one after the other, all started alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from serve.engine.cpu.kernel_report import METHOD as KERNELS_METHOD
from serve.engine.cpu.lm_head_8 import BITS_VARIABLE
from serve.engine.cpu.plugin import PATCHES_VARIABLE
from serve.engine.protocol import AdapterHandle, EngineFacts, EngineOutput, EngineRequest, Sampling
from serve.engine.vllm.arguments import EngineArguments, EngineWishes, choose_arguments, describe
from serve.engine.vllm.bring_up import (
    import_libraries,
    make_client,
    note_engine_stages,
    parse_arguments,
    start_fork_server,
)
from serve.engine.vllm.codec import RequestCodec
from serve.engine.vllm.core_processes import core_processes, end_processes
from serve.engine.vllm.lora_series import bound_lora_series
from serve.engine.vllm.machine import read_machine
from serve.engine.vllm.openai import VllmOpenAI
from serve.engine.vllm.outputs import count_generated, engine_output, sampling_params
from serve.engine.vllm.reasoning import ReasoningSplitter
from serve.engine.vllm.scoring import (
    fits_one_prompt,
    forced_logprob,
    forced_params,
    prompt_logprobs,
    prompt_params,
    scores_prompts,
)
from serve.errors import (
    EngineDeadError,
    EngineNotReadyError,
    EngineRefusedError,
    GenerationFailedError,
    LifecycleError,
    UnloadFailedError,
)
from serve.observability.startup import note_stage
from serve.observability.tracing import trace_headers

logger = logging.getLogger("hotswap.engine")

T = TypeVar("T")

_STOP_SECONDS = 10.0
_WARM_UP_PROMPT_TOKENS, _WARM_UP_TOKENS = 32, 4
_URGENT_PRIORITY = -1  # lower goes first; everybody else has 0


class VllmEngines:
    """A factory of engines. What fits the machine is chosen once, so that each is like the first."""

    def __init__(self, wishes: EngineWishes) -> None:
        self._wishes = wishes
        self._chosen: EngineArguments | None = None

    def __call__(self) -> VllmEngine:
        """An engine that has not been started."""
        return VllmEngine(self._wishes, self._choose)

    def _choose(self) -> EngineArguments:
        if self._chosen is None:
            self._chosen = choose_arguments(read_machine(), self._wishes)
        return self._chosen


class VllmEngine:
    """Implements serve.engine.protocol.MortalEngine."""

    def __init__(self, wishes: EngineWishes, choose: Callable[[], EngineArguments] | None = None) -> None:
        """`choose` gives vLLM's arguments; None: those that fit the machine now."""
        self._wishes = wishes
        self._choose = choose or (lambda: choose_arguments(read_machine(), wishes))
        self._client: Any = None
        self._processes: list[psutil.Process] = []
        self._facts: EngineFacts | None = None
        self._codec: RequestCodec | None = None
        self._openai: VllmOpenAI | None = None
        self._reasoning_parser: Any = None
        self._tokenizer: Any = None
        self._knows_priorities = False
        self._scores_prompts = False
        self._score_ids = itertools.count(1)

    @property
    def facts(self) -> EngineFacts:
        return _started(self._facts)

    @property
    def codec(self) -> RequestCodec:
        return _started(self._codec)

    @property
    def openai(self) -> VllmOpenAI:
        return _started(self._openai)

    async def start(self) -> None:
        started = time.perf_counter()
        args, notes = await asyncio.to_thread(self._prepare)
        for line in describe(notes):
            logger.info("engine setting %s", line)
        logger.info("starting vLLM; on a CPU this takes half a minute")
        self._client = await asyncio.to_thread(make_client, args)
        bound_lora_series(self._client)
        self._processes = await asyncio.to_thread(core_processes)
        self._tokenizer = self._client.renderer.tokenizer
        self._codec = await asyncio.to_thread(RequestCodec, self._tokenizer)
        self._openai = await VllmOpenAI.create(self._client, args, self._codec)
        if self._wishes.reasoning_parser is not None:
            from vllm.reasoning import ReasoningParserManager

            self._reasoning_parser = ReasoningParserManager.get_reasoning_parser(
                self._wishes.reasoning_parser
            )
        config = self._client.vllm_config
        kernels = await self._quantised_kernels()
        if kernels:
            notes["kernels"] = f"{kernels} (of quantised layers)"
            logger.info("quantised layers are computed by %s", kernels)
        self._facts = EngineFacts(
            model_name=self._wishes.model_name,
            context_tokens=config.model_config.max_model_len,
            vocab_size=config.model_config.get_vocab_size(),
            max_num_seqs=config.scheduler_config.max_num_seqs,
            max_loras=self._wishes.max_loras,
            max_cpu_loras=self._wishes.max_cpu_loras,
            max_lora_rank=self._wishes.max_lora_rank,
            reasoning=self._reasoning_parser is not None,
            dtype=str(config.model_config.dtype).removeprefix("torch."),
            quantisation=config.model_config.quantization,
            default_sampling=dict(config.model_config.get_diff_sampling_param()),
            notes=notes,
        )
        self._knows_priorities = config.scheduler_config.policy == "priority"
        self._scores_prompts = scores_prompts()
        logger.info(
            "vLLM is up after %.1f s: context %d tokens, %d sequences at once, %d adapter slots",
            time.perf_counter() - started,
            self._facts.context_tokens,
            self._facts.max_num_seqs,
            self._facts.max_loras,
        )
        if self._tells_of_itself():
            await note_engine_stages(self._client)
        await self._warm_up()
        note_stage("engine answers")

    def _tells_of_itself(self) -> bool:
        """Whether the worker has the reports that the plugin gives it."""
        device: str = self._client.vllm_config.device_config.device_type
        return device == "cpu" and bool(os.environ.get(PATCHES_VARIABLE) or os.environ.get(BITS_VARIABLE))

    async def _quantised_kernels(self) -> str:
        """Number of quantised layers by kernel, asked of the worker; empty without them, or without the plugin."""
        is_rounded = self._wishes.quantisation is not None or self._wishes.lm_head_bits is not None
        if not is_rounded or not self._tells_of_itself():
            return ""
        counts: dict[str, int] = (await self._client.collective_rpc(KERNELS_METHOD))[0]
        return ", ".join(f"{name} x {number}" for name, number in sorted(counts.items()))

    def _prepare(self) -> tuple[argparse.Namespace, dict[str, str]]:
        chosen = self._choose()
        os.environ.update(chosen.environment)  # read by vLLM here and, inherited, in its processes
        start_fork_server(chosen)
        import_libraries()
        return parse_arguments(chosen.arguments), dict(chosen.notes)

    async def _warm_up(self) -> None:
        """One short answer: whoever comes first shall not wait for what vLLM makes when it is first asked."""
        sampling = Sampling(max_tokens=_WARM_UP_TOKENS, temperature=0.0, ignore_eos=True)
        tokens = [0] * min(_WARM_UP_PROMPT_TOKENS, self.facts.context_tokens - _WARM_UP_TOKENS)
        await self._last(tokens, sampling_params(sampling, stream=False), None)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        await asyncio.to_thread(client.shutdown, _STOP_SECONDS)
        del client
        self._let_go()
        # The client's finaliser fails when it first runs at interpreter exit; let it run now.
        gc.collect()

    async def kill(self) -> None:
        client, self._client = self._client, None
        processes = self._processes or core_processes()
        await asyncio.to_thread(end_processes, processes, wait_seconds=_STOP_SECONDS)
        if client is None:
            self._let_go()
            return
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        # Told here: vLLM's own way to tell its requests is cut off by the shutdown below.
        client.engine_core.resources.engine_dead = True
        client.output_processor.propagate_error(VllmDeadError())
        await asyncio.to_thread(client.shutdown, 0)
        del client
        self._let_go()

    def _let_go(self) -> None:
        """Drop all that hangs on the client."""
        self._client = self._openai = self._codec = self._tokenizer = self._reasoning_parser = None
        # The server sets aside what lives until its end, and collects again when the next engine is there: not
        # now, when every client is to hear at once that this one is gone.
        gc.unfreeze()

    @property
    def process_ids(self) -> Sequence[int]:
        return [process.pid for process in self._processes]

    async def heartbeat(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        try:
            await self._alive().list_loras()
        except VllmDeadError:
            raise EngineDeadError("the engine process is gone") from None

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        splitter = None
        if request.split_reasoning and self._reasoning_parser is not None:
            splitter = ReasoningSplitter(self._reasoning_parser, self._tokenizer)
        steps = self._run(
            request.request_id,
            request.prompt_token_ids,
            sampling_params(request.sampling, stream=request.stream),
            request.adapter,
            urgent=request.urgent,
            cache_salt=request.cache_salt,
        )
        async with contextlib.aclosing(steps):
            async for step in steps:
                output = engine_output(step)
                if any(delta.finish_reason == "error" for delta in output.deltas):
                    raise GenerationFailedError("the engine failed on this request")
                if splitter is not None:
                    for delta in output.deltas:
                        splitter.split(delta) if request.stream else splitter.split_whole(delta)
                yield output

    async def score(
        self,
        prompt_token_ids: Sequence[int],
        continuation_token_ids: Sequence[int],
        adapter: AdapterHandle | None,
    ) -> list[float]:
        text = [*prompt_token_ids, *continuation_token_ids]
        if self._scores_prompts and fits_one_prompt(
            len(text), vocab_size=self.facts.vocab_size, context_tokens=self.facts.context_tokens
        ):
            output = await self._last(text, prompt_params(), adapter)
            return prompt_logprobs(output, continuation_token_ids)
        found = []
        for place, token_id in enumerate(continuation_token_ids, len(prompt_token_ids)):
            output = await self._last(text[:place], forced_params(token_id), adapter)
            found.append(forced_logprob(output, token_id))
        return found

    async def _last(self, token_ids: Sequence[int], params: Any, adapter: AdapterHandle | None) -> Any:
        """vLLM's one output of an urgent request that does not stream."""
        last = None
        steps = self._run(f"score-{next(self._score_ids)}", token_ids, params, adapter, urgent=True)
        async with contextlib.aclosing(steps):
            async for step in steps:
                last = step
        if last is None or any(part.finish_reason == "error" for part in last.outputs):
            raise GenerationFailedError("the engine failed on this request")
        return last

    async def _run(
        self,
        request_id: str,
        token_ids: Sequence[int],
        params: Any,
        adapter: AdapterHandle | None,
        *,
        urgent: bool,
        cache_salt: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs, with vLLM's errors as the gateway's. Closing the iterator aborts the request."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError
        from vllm.v1.engine.exceptions import EngineGenerateError

        stream = self._alive().generate(
            tokens_input(list(token_ids), cache_salt=cache_salt),
            params,
            request_id,
            lora_request=_lora_request(adapter) if adapter is not None else None,
            priority=_URGENT_PRIORITY if urgent and self._knows_priorities else 0,
            trace_headers=trace_headers(),
        )
        try:
            async for step in stream:
                yield step
        except VllmDeadError:
            raise EngineDeadError("the engine process is gone; the request was not completed") from None
        except EngineGenerateError as error:
            logger.error("request %s failed in the engine", request_id, exc_info=error)
            raise GenerationFailedError("the engine failed on this request") from None
        except (VLLMClientError, ValueError) as error:
            raise EngineRefusedError(f"the engine refused the request: {error}"[:1000]) from None
        finally:
            await stream.aclose()

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        client = self._alive()
        lora_request = _lora_request(adapter)
        try:
            await client.add_lora(lora_request)
        except _engine_failures() as error:
            await self.check_health()
            reason = str(error).replace(str(adapter.path), "the adapter's folder").strip().splitlines()[-1:]
            raise LifecycleError(
                f"the engine refused adapter {adapter.name}: {(reason or ['it gave no reason'])[0][:500]}"
            ) from None
        self.openai.add_adapter(adapter, lora_request)

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        client = self._alive()
        self.openai.remove_adapter(adapter)
        try:
            # False when the adapter had been evicted before, which is as good.
            await client.remove_lora(adapter.engine_id)
            held = await client.list_loras()
        except _engine_failures() as error:
            await self.check_health()
            raise UnloadFailedError(f"the engine could not unload {adapter.name}: {error}"[:500]) from None
        if adapter.engine_id in held:
            raise UnloadFailedError(f"the engine was told to unload {adapter.name} and still holds it")

    async def resident_adapters(self) -> set[int]:
        return set(await self._alive().list_loras())

    def generated_tokens(self, request_id: str) -> int:
        return count_generated(self._client, request_id) if self._client is not None else 0

    async def check_health(self) -> None:
        if self._client is None or self._client.errored:
            raise EngineDeadError("the engine process is gone")

    def _alive(self) -> Any:
        if self._client is None:
            raise EngineNotReadyError("the engine is not running")
        if self._client.errored:
            raise EngineDeadError("the engine process is gone")
        return self._client


def _lora_request(adapter: AdapterHandle) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(
        lora_name=adapter.name, lora_int_id=adapter.engine_id, lora_path=str(Path(adapter.path))
    )


def _engine_failures() -> tuple[type[Exception], ...]:
    """What a utility call on the engine core raises: it wraps whatever went wrong there in a plain Exception."""
    return (Exception,)


def _started(value: T | None) -> T:
    if value is None:
        raise EngineNotReadyError("the engine has not been started")
    return value
