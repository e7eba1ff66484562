import pytest

from benchmarks import flags
from fedvlr_jax.errors import UserError


def test_lists_are_read():
    assert flags.sizes("clients", "1000,10") == [10, 1000]
    assert flags.names("contenders", "b,a", ("a", "b")) == ["b", "a"]


@pytest.mark.parametrize("text", ["", "10,", "0", "ten", "-3", "1e3"])
def test_what_is_no_list_of_sizes_is_refused(text):
    with pytest.raises(UserError, match=r"--clients=.*: expected whole numbers from 1 on"):
        flags.sizes("clients", text)


def test_bad_names_are_refused():
    with pytest.raises(UserError, match="--contenders=a,c: expected names from a, b"):
        flags.names("contenders", "a,c", ("a", "b"))
    with pytest.raises(UserError, match="named twice"):
        flags.names("contenders", "a,a", ("a", "b"))
