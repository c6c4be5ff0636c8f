"""Families of metrics; what the text says of them is in test_metrics.py."""

from xbbd_bsd.control.families import LIMITS, folded
from xbbd_bsd.stats import bucket_limit


def test_latency_is_folded_at_limits_of_the_data_path() -> None:
    assert all(any(bucket_limit(b) == limit for b in range(320)) for limit in LIMITS)
    assert folded({}) == [*((repr(limit / 1e9), 0) for limit in LIMITS), ("+Inf", 0)]
    # Bucket 95 ends at 16383 ns, 96 begins there; 319 takes all that is longer.
    assert bucket_limit(95) == 16383
    found = dict(folded({0: 1, 95: 2, 96: 4, 319: 8}))
    assert found["1.6383e-05"] == 3
    assert found["3.2767e-05"] == 7
    assert found["+Inf"] == 15
