"""Speed beside the peers: one script a family."""
