"""Tests of frames and statistics."""
