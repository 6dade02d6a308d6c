"""Where bytes lie: databases, encryption keys, blobs and content-addressed artifacts."""
