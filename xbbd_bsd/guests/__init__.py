"""The processes of guests: which there are, and what becomes of those that die."""
