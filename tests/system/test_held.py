"""A change that the whole process shares. Oracle: a counter of what is done."""

import threading

import pytest

from octoscale.system.held import Held


def test_the_first_changes_and_the_last_undoes():
    done = []
    held = Held(lambda: done.append("change"), lambda: done.append("undo"))
    with held:
        assert done == ["change"]
        with pytest.raises(ZeroDivisionError), held:
            1 / 0  # noqa: B018
        assert done == ["change"]
    assert done == ["change", "undo"]
    with held:
        pass
    assert done == ["change", "undo"] * 2


def test_a_change_that_fails_is_not_held():
    held = Held(lambda: 1 / 0, lambda: pytest.fail("nothing was changed"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), held:
            pass


def test_threads_never_find_it_undone():
    """It is on or off, and on inside every block."""
    state, wrong, barrier = [False], [], threading.Barrier(8)
    held = Held(lambda: wrong.append(state[0]) or state.__setitem__(0, True), lambda: state.__setitem__(0, False))

    def work():
        barrier.wait()
        for _ in range(500):
            with held:
                wrong.append(not state[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    assert not state[0]
