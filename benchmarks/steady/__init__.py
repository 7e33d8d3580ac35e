"""Load that goes on while something is done to the server: lanes that each ask their adapters in turn."""
