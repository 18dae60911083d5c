"""Who is admitted, what is held for a request, and what it costs."""
