"""A whole fleet as processes on this machine: broker, roles, their files, and a wire that counts bytes."""
