# Generated from _async by make_sync.py: change that, and run it.
"""Speak to the gateway and block."""
