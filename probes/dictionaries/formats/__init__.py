"""Dictionaries written by other libraries, as SAELens objects.

One file per format; each makes a SAELens configuration and its weights, and refuses what it cannot
represent.
"""
