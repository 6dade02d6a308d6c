"""What everything else stands on: digests, seeding, tensors as bytes, atomic files, exact sums."""
