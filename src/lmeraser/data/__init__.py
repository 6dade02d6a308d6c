"""Private records: what they hold, where they come from, what is derived from each."""
