"""Updates as whole numbers, which secret sums add up: what their protocols have in common."""
