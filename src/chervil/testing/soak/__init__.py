"""A soak test: tasks of many kinds on several nodes, while everything is being killed.

``python -m chervil.testing.soak --help`` says what it can do. What was sent and what ran
is kept in files outside of the broker (:mod:`chervil.testing.soak.ledger`), so that the
verdict does not depend on what is being tested.
"""
