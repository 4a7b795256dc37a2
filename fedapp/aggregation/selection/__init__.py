"""Whom a round asks: the options of the group `cohort`."""
