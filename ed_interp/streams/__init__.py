"""Reading (and later writing) the residual stream."""
