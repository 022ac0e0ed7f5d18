"""Anybody's model, by the target that names it: what builds it, its inputs and its loss."""
