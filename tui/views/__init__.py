"""The views behind the keys 1 to 6: what each asks of a trace, on the whole screen."""
