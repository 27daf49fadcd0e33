"""Populations of prompts: lists, labelled tasks, files, data sets, windows of text."""
