"""The shell towards model providers: their credentials, connections and bytes."""
