"""An evaluation: every task in all lanes, chunk by chunk, into an append-only file."""
