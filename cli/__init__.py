"""The operator's command line: `weir keys create`, `weir status`."""
