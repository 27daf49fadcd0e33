"""Tasks that tell one kind of adapter from another."""
