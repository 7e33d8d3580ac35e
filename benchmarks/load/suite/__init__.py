"""`hotswap bench suite`: short parts one after the other on one gateway, within so many minutes, in one report.

A part is an entry of `parts.PARTS`.
"""
