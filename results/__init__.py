"""Measured results, and the tool that makes tables of them."""
