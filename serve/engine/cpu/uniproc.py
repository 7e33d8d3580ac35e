"""Runs vLLM's CPU worker inside the engine process when there is only one: a process and an import less.

Defect (vLLM 0.32.0, CPU; speed): `CpuPlatform.check_and_update_config` turns the in-process executor `uni` into
`mp`, because OpenMP's thread count has to be in the environment before the worker's libraries load. The worker
then imports torch, transformers and vLLM once more, and every step crosses a process boundary.

Mend: the engine process is spawned by the front end, so the count can be put into the environment before that:
OMP_NUM_THREADS from vLLM's own reading of VLLM_CPU_OMP_THREADS_BIND (an OMP_NUM_THREADS that is set already is
kept). Threads are not pinned to cores: a pinned main thread would hand its pin on to the engine's socket threads.
An executor that was asked for by name is left alone, and so are tensor, pipeline and data parallelism.

Can go when vLLM accepts `distributed_executor_backend="uni"` on CPU.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = logging.getLogger(__name__)

_MARK = "_hotswap_uniproc"


def install() -> None:
    """Keep the in-process executor where vLLM's CPU platform would replace it; again changes nothing."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config
    if hasattr(original, _MARK):
        return

    @functools.wraps(original.__func__)
    def check_and_update_config(cls: Any, vllm_config: VllmConfig) -> None:
        backend_before = vllm_config.parallel_config.distributed_executor_backend
        original.__func__(cls, vllm_config)
        if backend_before == "uni" and vllm_config.parallel_config.world_size_across_dp == 1:
            vllm_config.parallel_config.distributed_executor_backend = "uni"
            _set_thread_count(vllm_config)

    setattr(check_and_update_config, _MARK, True)
    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


def _set_thread_count(vllm_config: VllmConfig) -> None:
    """Put the number of OpenMP threads into the environment that the engine process inherits."""
    from vllm.utils.ompmultiprocessing import OMPProcessManager

    if "OMP_NUM_THREADS" in os.environ:
        return
    cpu_lists = OMPProcessManager(vllm_config).cpu_lists
    if cpu_lists:
        os.environ["OMP_NUM_THREADS"] = str(len(cpu_lists[0]))
        logger.info("One process for engine and worker, OMP_NUM_THREADS=%d", len(cpu_lists[0]))
