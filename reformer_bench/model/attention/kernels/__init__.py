"""The kernels of attention inside chunks, behind one interface."""
