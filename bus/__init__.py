"""The wire: one port, JetStream behind it, a simulated bus behind it."""
