"""Faults on purpose: a proxy that spoils connections, signals to the processes of a node."""
