"""What the fork server of `forked_core` imports, so that the engine processes forked from it have it already.

Nothing here computes: a pool of threads would not survive the fork.
"""

from __future__ import annotations

import gc

from serve.engine.orphan import follow_starter

follow_starter()

import vllm.v1.engine.core  # noqa: E402
import vllm.v1.executor.uniproc_executor  # noqa: E402
import vllm.v1.worker.cpu_worker  # noqa: E402, F401

# Collections in the engine do not touch, and so copy, what all of them share.
gc.collect()
gc.freeze()
