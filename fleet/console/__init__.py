"""What operators and scripts ask of a fleet, and how it is shown to them: a file a command, and what they share."""
