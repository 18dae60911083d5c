"""What an operator may write and reads back."""
