"""Imports vLLM's kernels before the tests do, past a deprecation warning of torch's own."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
    import vllm.model_executor.kernels.linear  # noqa: F401
