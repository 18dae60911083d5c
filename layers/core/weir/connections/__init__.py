"""Connections to elsewhere: whom to believe, how to speak TLS, and whether the far end is there."""
