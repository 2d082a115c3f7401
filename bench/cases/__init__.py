"""One file for each technology, one for what does not depend on one."""

from bench.cases import client_side, redis, sqlite

__all__ = ["client_side", "redis", "sqlite"]
