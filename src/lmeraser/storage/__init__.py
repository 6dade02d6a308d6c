"""Storage of bytes: databases, encryption keys, blobs and content-addressed artifacts."""
