"""All commands that every node has."""

from chervil.worker.control import looking, running, tasks

__all__ = ["looking", "running", "tasks"]
