"""`fedge ca`, `fedge enroll` and `fedge agent adopt`: what an operator does about who is who."""
