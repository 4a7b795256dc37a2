"""The server's side of vertical learning: it relays sealed payloads between parties, keeps time, and records."""
