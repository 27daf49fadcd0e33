"""Probes read the residual stream and return a result; they never write to the model."""
