"""The output layer in 8 bits: rounded when a base is loaded, and served so only if its quality was measured.

rounding.py   the table to bytes and scales, for measuring and for serving alike
record.py     what was measured on one base, and whether it passes
measure.py    the base with its rounded output layer beside itself on held-out text
"""
