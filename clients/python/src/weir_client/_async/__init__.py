"""Speak to the gateway without blocking. `_sync` is generated from these modules."""
