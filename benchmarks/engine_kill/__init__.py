"""What the loss of the engine's process costs: kill -9 and SIGSTOP under load."""
