"""The command line, a file a group of commands: their options with an example each, and what each of them does."""
