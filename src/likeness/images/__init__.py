"""Which pictures there are, and their pixels."""
