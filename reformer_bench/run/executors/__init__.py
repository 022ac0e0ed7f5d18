"""Executors run cases as processes of this machine, or as jobs of a Slurm cluster."""
