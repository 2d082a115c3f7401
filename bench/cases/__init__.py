"""One file for each technology, one for what does not depend on one."""

from bench.cases import beat, client_side, redis, sqlite

__all__ = ["beat", "client_side", "redis", "sqlite"]
