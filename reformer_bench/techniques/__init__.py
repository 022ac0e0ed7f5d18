"""Memory techniques for any module: what is kept for the backward pass, and where it waits."""
