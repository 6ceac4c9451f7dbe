"""A collection as a whole: its map, its groups and its near-duplicates, kept in the index folder."""

from searchengine.analyse.mapping.groups import GROUPS, GroupOptions, make_groups
from searchengine.analyse.mapping.map import MAP, MapOptions, make_map

__all__ = ["GROUPS", "MAP", "GroupOptions", "MapOptions", "make_groups", "make_map"]
