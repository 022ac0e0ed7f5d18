"""What a stack of layers keeps for the backward pass: everything, checkpoints, or nothing."""
