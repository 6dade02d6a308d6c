"""The pages of the service, for people."""
