"""What can be seen of a gateway: metrics, spans, logs, events."""
