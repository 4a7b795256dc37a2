"""Starting a run from a terminal: a SuperLink of one's own, `flwr run`, and following it to its end."""
