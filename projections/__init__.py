"""The memory: the deterministic rules, the state tree, the chain of blocks, read models, replay and audit."""
