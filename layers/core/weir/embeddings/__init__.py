"""Requests that are answered with one document: embeddings and moderations."""
