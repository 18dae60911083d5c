"""Webhooks: what a project's server is told, to which address, signed how, and how often."""
