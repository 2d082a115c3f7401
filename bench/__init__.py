"""Measurements side by side: Chervil, the bare loop over its own storage, the peers.

``make bench`` runs all of it; ``python -m bench sqlite.prefork startup`` some.
"""
