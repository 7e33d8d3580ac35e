"""Ways to adapt a base: one file each, listed in registry.py."""
