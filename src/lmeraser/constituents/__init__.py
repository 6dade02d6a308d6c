"""What is tuned for one cluster."""
