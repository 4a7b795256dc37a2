"""Trackers: where a run's record is told to, besides its directory."""
