"""The main job on a real account: see conftest.py for what it takes and what it costs."""

import asyncio
import operator

import starburst
from starburst.client import pool as pools


def test_map_on_fargate(budget):
    options = budget.session(workers=2, minutes=15)
    assert starburst.map(operator.neg, range(100), progress=False, **options) == [-i for i in range(100)]
    pools.close_all()


def test_a_detached_session_is_found_again_and_leaves_nothing(budget):
    session = starburst.session(**budget.session(workers=2, minutes=15, spot="only"))
    session.map(operator.neg, range(100))
    found = starburst.attach(session.session_id)
    assert found.collect(timeout="10m") == [-i for i in range(100)]
    found.cleanup(force=True)
    statuses = asyncio.run(found.provider.describe(session.session_id))
    assert [status.worker for status in statuses if status.alive] == []
    assert session.session_id not in [row.session_id for row in starburst.list_sessions()]
