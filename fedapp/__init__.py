"""fedapp: federated learning in PyTorch for data that must not leave its owner, as a Flower app."""
