"""Neighbours, hits, and how sure we are of them."""
