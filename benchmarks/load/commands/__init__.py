"""The subcommands of `hotswap bench`. Light to import: hotswap.py does."""
