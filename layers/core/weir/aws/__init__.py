"""The shell towards AWS: the only place that knows keys, items, conditions and secrets."""
