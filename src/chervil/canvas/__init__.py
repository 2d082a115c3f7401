"""Signatures, and what is made of them."""
