"""Where F runs."""
