"""Probes: what memory, time and work a step really takes, each probe in a file of its own."""
