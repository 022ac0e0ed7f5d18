"""What a case, a model configuration and a record are; units. No torch."""
