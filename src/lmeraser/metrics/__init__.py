"""The metrics of machine unlearning: pure functions of numpy arrays."""
