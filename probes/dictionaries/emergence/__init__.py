"""Emergence of features: which become active or informative with shots and with training."""
