"""Whether rings answer."""

from xbbd_bsd.block.progress import Progress


def test_a_ring_waits_from_when_it_was_first_seen_where_it_is() -> None:
    progress = Progress()
    assert progress.look(10.0, [(0, 3, 100)]) == 0.0
    assert progress.look(12.0, [(0, 3, 100)]) == 2.0
    assert progress.look(13.0, [(0, 9, 101)]) == 0.0, "it has answered one"
    assert progress.look(17.5, [(0, 9, 101)]) == 4.5


def test_a_ring_without_requests_waits_for_nothing() -> None:
    progress = Progress()
    progress.look(0.0, [(0, 1, 5)])
    assert progress.look(9.0, [(0, 0, 6)]) == 0.0
    assert progress.look(10.0, [(0, 0, 6)]) == 0.0
    assert progress.look(11.0, [(0, 1, 6)]) == 0.0
    assert progress.look(12.0, []) == 0.0


def test_the_slowest_of_several_counts() -> None:
    progress = Progress()
    progress.look(0.0, [(0, 1, 5), (1, 1, 7)])
    assert progress.look(4.0, [(0, 1, 6), (1, 1, 7), (2, 1, 1)]) == 4.0
    assert progress.look(6.0, [(0, 1, 6), (1, 1, 8), (2, 1, 1)]) == 2.0
