"""The erasure service: deletion requests and predictions over HTTP (extra ``service``)."""
