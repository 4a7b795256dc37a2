"""Sums through a helper under additively homomorphic encryption, of whichever scheme."""
