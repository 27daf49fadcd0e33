"""Adapters write to the residual stream."""
