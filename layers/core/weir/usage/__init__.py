"""Where the tokens and the money went: sums of usage rows, and questions about them."""
