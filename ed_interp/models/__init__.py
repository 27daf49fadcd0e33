"""Loading any model under hooks; the bundled models and the recipe that made them."""
