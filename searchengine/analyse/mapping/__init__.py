"""A collection seen as a whole: its map, its groups and its near-duplicates, kept in the index folder."""

from searchengine.analyse.mapping.groups import GroupOptions, make_groups
from searchengine.analyse.mapping.map import MapOptions, make_map

__all__ = ["GroupOptions", "MapOptions", "make_groups", "make_map"]
