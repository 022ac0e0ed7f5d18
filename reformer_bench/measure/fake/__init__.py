"""Recordings of runs on tensors that hold no memory."""
