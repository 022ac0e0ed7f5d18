"""Recordings of what torch's own allocators did."""
