"""What a net is: the table of kinds, each in NumPy and in Torch, and their losses."""
