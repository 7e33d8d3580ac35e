"""The ways of making a base smaller, one file each.

scheme.py     what a scheme is
rounding.py   what is rounded how, shared by the schemes
registry.py   all of them by name
"""
