"""Should these sites federate? Each alone, all pooled, and federated, judged on the same held-out rows."""
