"""What is done to an update between training and aggregation, as one visible list of steps."""
