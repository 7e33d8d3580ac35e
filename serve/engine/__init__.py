"""Engines: the protocol that the gateway talks to, and what implements it."""
