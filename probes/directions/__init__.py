"""Steering directions: how they are found, and whether they will work, before they are applied."""
