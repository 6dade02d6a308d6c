"""The training function F: its stages, their caches, and where the expensive ones run."""
