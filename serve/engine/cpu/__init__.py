"""Mends and speed-ups of vLLM's CPU backend, applied from outside through `vllm.general_plugins`.

One file per defect; `plugin.py` switches them on; docs/upstream-defects.md tells their stories.
"""
