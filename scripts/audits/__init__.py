"""What scripts/audit.py attacks: one file each, which attacks, shows and saves."""
