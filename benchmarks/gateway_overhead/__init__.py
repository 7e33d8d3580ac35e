"""What the gateway costs: the same load on Hotswap's gateway and on the stock vLLM server, in turns.

`python -m benchmarks.gateway_overhead --help` tells how to run it; benchmarks/LOG.md holds what it measured.
"""
