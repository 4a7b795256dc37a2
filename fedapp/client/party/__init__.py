"""A party's side of vertical learning: what a SuperNode does with each order, for the parties that it hosts."""
