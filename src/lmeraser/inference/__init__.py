"""Predictions of a served model, and how accurate they are."""
