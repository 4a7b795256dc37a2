"""Differential privacy of a client's examples: noise, training, the ledger of what was spent, and budgets."""
