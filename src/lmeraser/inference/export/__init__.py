"""Models that leave the house: export of the served model, and its use without a workspace."""
