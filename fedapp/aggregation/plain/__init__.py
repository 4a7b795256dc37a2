"""The plain protocol: one stage. Clients send their updates, and the server adds them up, exactly."""
