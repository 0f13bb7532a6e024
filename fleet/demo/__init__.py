"""`fedge demo`: from nothing to a trained model on this machine, with plots."""
