"""How updates become the next version: a file for each strategy, and one table of them."""
