"""Using the model of a finished run: predictions for new examples, and export to other programs."""
