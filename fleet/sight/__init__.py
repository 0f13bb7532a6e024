"""The state of a fleet at one moment, for people: what the page, the terminal, metrics and notices all show."""
