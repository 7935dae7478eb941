"""What may be set: the declarations, what a value may be, and reading and checking them."""
