"""Describing features: contexts, tokens, neighbours and effects, as a page to read offline."""
