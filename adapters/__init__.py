"""Adapters write to the residual stream. This room is reserved; it holds no adapter yet."""
