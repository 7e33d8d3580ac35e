"""What the Makefile runs before there is an environment: standard library only, any Python 3.11 or 3.12."""
