"""The live page: a run directory, shown on this machine while it grows."""
