"""Many runs at once: what is read of their folders, and the tables made from it."""
