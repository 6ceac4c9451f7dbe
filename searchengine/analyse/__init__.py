"""Analyses of a whole index: evaluation, map, groups, and the neighbours of every image."""
