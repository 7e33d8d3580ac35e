"""The one client that sends load, and what it notes of every request."""
