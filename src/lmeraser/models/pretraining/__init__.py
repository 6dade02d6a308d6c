"""Making a backbone from public images."""
