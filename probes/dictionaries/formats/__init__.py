"""Dictionaries that others have written, as SAELens objects.

One file per format; each gives a SAELens configuration and its weights, and refuses what it
cannot represent rather than load something else.
"""
