"""The picture in README against the table that it is drawn from."""

from PIL import Image

from docs.tools import speed
from tests.docs.pages import ROOT


def test_the_picture_shows_the_numbers_of_the_page():
    with Image.open(speed.PICTURE) as picture:
        assert picture.text["Description"] == str(speed.rates()), "run python -m docs.tools.speed"


def test_it_is_told_in_words_too():
    (line,) = (x for x in (ROOT / "README.md").read_text("utf-8").split("\n\n") if "speed.png" in x)
    for numbers in speed.rates().values():
        for name, number in numbers.items():
            told = "not measured" if number is None else f"{number:,}"
            assert f"{speed.SHOWN[name]} {told}" in " ".join(line.split())
