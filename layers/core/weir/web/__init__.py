"""The web's own rules: what a request is, which pages may call, and the headers of every answer."""
