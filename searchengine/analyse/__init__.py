"""What is computed over a whole index: how good it is, its map and groups, the neighbours of every image."""
