"""The environment of a run is clean, as in the tests of the server."""

from __future__ import annotations

from tests.serve.conftest import clean_environment

__all__ = ["clean_environment"]
