"""What it costs to look on a fleet by its page, and what looking on costs the rounds: real processes throughout."""
