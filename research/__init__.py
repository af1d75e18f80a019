"""A research codebase in JAX: pure functions, one train step, one loop, from flag to table."""
