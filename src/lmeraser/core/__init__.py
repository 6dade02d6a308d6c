"""Foundations that no other room is needed for: digests, seeding, tensors as bytes, atomic files, exact sums."""
