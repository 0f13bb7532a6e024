"""`fedge simulate`: thousands of devices in one process, over a broker in memory."""
