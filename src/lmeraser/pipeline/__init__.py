"""The training function: its stages, their caches, and where the expensive ones run."""
