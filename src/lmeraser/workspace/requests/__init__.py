"""Deletion requests: states, storage, selection, subscriptions."""
