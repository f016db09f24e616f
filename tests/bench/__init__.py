"""Benchmarks of decoding in lockstep and of the screen, for `make bench`."""
