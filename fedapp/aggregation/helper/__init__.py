"""Sums through a helper site: one message of each client, dropouts free, and nothing readable at the server alone.

A client adds a mask from a fresh seed to its whole numbers and sends the sum to the server; the seed goes sealed to the
helper in the same message. The helper removes the masks of a sum, once for each client and model, and of no fewer
clients than all of them ask for. `tags`: what a client signs; `keys`: the helper's keys of a run; `carrier`: how masked
numbers travel and are added; the three sides: `client`, `server`, `site`.
"""
