"""What an operator has set up: projects, their tiers and limits, the model catalogue."""
