"""Emergence: token-level against semantic-level information, per block, over shot counts."""
