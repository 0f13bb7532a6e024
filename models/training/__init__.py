"""Training as an iterator of steps: where it stands, and what it measures of itself."""
