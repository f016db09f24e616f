"""`make bench`: what decoding in lockstep and showing it cost, measured in one run."""
