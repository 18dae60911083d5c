"""One chat request: understood, forwarded, relayed, billed."""
