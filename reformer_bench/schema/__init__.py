"""What a case, a model configuration and a record are, and their units. It needs no torch."""
