"""A closed loop of load on several servers in turns: what the comparisons of servers share.

Words and rules are those of benchmarks/LOG.md.
"""
