"""All processes of the tests share a secret; none is made in the user's home folder."""

import pytest

SECRET = "a secret of the tests"


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("FEDVLR_SECRET", SECRET)
