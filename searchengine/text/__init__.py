"""Words -> images: a text is turned into a feature by way of the classes that the network of an index knows."""
