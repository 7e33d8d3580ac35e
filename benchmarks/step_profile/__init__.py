"""Where the time of a decode step goes, and what the shorter paths through vLLM's layers save of it.

`python -m benchmarks.step_profile`: the engine as the gateway starts it, in one process, one base after another.
Two figures of the same steps: wall time, and processor time of the thread that runs the engine, which other
programs on the machine disturb less.
"""
