"""The fixtures of the project's tests, for the tests of the examples, too."""

from tests.conftest import (  # noqa: F401
    _no_children_left,
    process_tree,
    sqlite_url,
    wait_until,
    worker,
)
