"""privacy=client_dp: all that one client contributes to a run is protected, and not only each single example of it."""
