"""Tests of the paper's claims and of what is said beside them."""
