"""Code that exports for transformers carry with them; it imports nothing of lmeraser."""
