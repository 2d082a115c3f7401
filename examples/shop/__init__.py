"""The small project of the tutorial."""
