"""A plugin of pytest for runs that end at the first failure: hypothesis looks for no smaller one.

What it tries is the same each time, so that a mutant which dies once does so again.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def pytest_configure() -> None:
    """After tests/conftest.py has chosen its own profile."""
    settings.register_profile(
        "mutants",
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("mutants")
