"""The nearest images of every image of a set: as a table, and as pictures."""

from searchengine.analyse.neighbours.run import NeighboursOptions, Written, write_neighbours
from searchengine.analyse.neighbours.whole import Block, whole_set

__all__ = ["Block", "NeighboursOptions", "Written", "whole_set", "write_neighbours"]
