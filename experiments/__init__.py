"""The scripts: python -m experiments.<name>. Each parses its flags, calls one function and prints what it returns."""
