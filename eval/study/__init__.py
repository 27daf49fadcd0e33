"""Controlled studies: several arms, swept over rates, trained with several seeds, compared."""
