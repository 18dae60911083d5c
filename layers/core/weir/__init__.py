"""Weir's own code: rules in this folder, everything that talks in `aws/` and `upstreams/`.

Imports run doors -> shell -> core, never up. The core knows no boto3, no network, no clock and no
environment: what it needs of those is passed in.
"""
