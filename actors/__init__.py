"""The will: proposer, coordinator, miner, wallet, and the command line."""
