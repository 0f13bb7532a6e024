"""What stands on both roots: the `fedge` command line, the demo and the simulator."""
