"""Reading and writing the residual stream."""
