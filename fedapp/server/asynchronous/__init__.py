"""Rounds in which clients are at work on different models, and virtual time, in which simulations play slow clients."""
