"""Steering compared with controls: sweeps, and what of in-context learning a vector restores."""
