"""The index: what is kept of a collection, and how it is searched."""
