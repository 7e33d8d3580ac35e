"""What replacing one adapter every second costs the requests on others."""
