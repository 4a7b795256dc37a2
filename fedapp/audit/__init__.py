"""Attacks on what a federation sends and makes: membership inference, gradient inversion, and what they prove of ε."""
