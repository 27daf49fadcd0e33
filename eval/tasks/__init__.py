"""Tasks that are made to tell one kind of adapter from another."""
