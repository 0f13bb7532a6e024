"""`fedge chaos`: kill everything, everywhere, and see whether it matters."""
