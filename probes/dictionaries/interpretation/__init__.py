"""Scoring explanations of features without a judge model."""
