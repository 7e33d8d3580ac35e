"""What a gateway gives when more is asked than it can do: good answers a second, and prompt refusals."""
