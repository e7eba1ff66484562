"""A recommendation as one HTML page that needs nothing else: pictures inside, light and dark."""

import base64
import io

from fedvlr_jax.analysis.recommendation import Recommendation, Shown
from fedvlr_jax.data.pictures import PictureError, PictureFolder, quiet_decoders
from fedvlr_jax.report import shell

_SIDE = 240  # pixels of a picture on the page, at most
_HISTORY = 12  # items of the history with a picture

_STYLE = """
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  overflow: hidden; position: relative; }
.picture { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; background: #fff; }
.none { display: grid; place-items: center; background: var(--ground); color: var(--soft);
  font-size: .85rem; }
.title { padding: .5rem .6rem .6rem; font-size: .85rem; overflow-wrap: anywhere; }
.place { position: absolute; top: .4rem; left: .4rem; min-width: 1.6rem; padding: 0 .4rem;
  text-align: center; border-radius: .8rem; background: var(--bar); color: var(--card);
  font-size: .85rem; font-weight: 600; }
.hit { border: 2px solid var(--hit); }
.hit strong { color: var(--hit); display: block; }
table { width: 100%; max-width: 34rem; }
th { text-align: left; font-weight: 500; padding: .2rem .8rem .2rem 0; width: 1%;
  white-space: nowrap; }
td { padding: .2rem 0; }
td:last-child { width: 4rem; text-align: right; font-variant-numeric: tabular-nums; }
.bar { height: .9rem; border-radius: .3rem; background: var(--bar); min-width: 1px; }
"""


def card(shown: Recommendation) -> str:
    """The page."""
    name = f"user {shown.user}" + (f" ({shown.name})" if shown.name else "")
    history = shown.history[:_HISTORY]
    more = len(shown.history) - len(history)
    with quiet_decoders():
        best = "".join(_item(item, shown.folder, k) for k, item in enumerate(shown.top, 1))
        past = "".join(_item(item, shown.folder) for item in history)
    bars = "".join(
        f'<tr><th scope="row">{shell.text(view)}</th>'
        f'<td><div class="bar" style="width:{100 * weight:.1f}%"></div></td>'
        f"<td>{100 * weight:.0f} %</td></tr>"
        for view, weight in shown.weights.items()
    )
    router = (
        "how this user's private router weighs the views"
        if len(shown.weights) > 1
        else "this variant has one view and no router"
    )
    body = f"""<h1>{shell.text(name)}</h1>
<p>{shell.text(f"{shown.data}, variant {shown.variant}, run {shown.run}")}</p>
<h2>Recommended</h2>
<ol>{best}</ol>
<p style="margin-top:.75rem">{shell.text(outcome(shown))}</p>
<h2>View weights</h2>
<p style="margin-bottom:.5rem">{router}</p>
<table>{bars}</table>
<p style="margin-top:.5rem">{shell.text(planted(shown))}</p>
<h2>History</h2>
<p style="margin-bottom:.75rem">{len(shown.history)} train items, the newest first\
{f"; {more} older ones are left out" if more else ""}</p>
<ol>{past}</ol>"""
    return shell.page(f"{name}: recommendations", _STYLE, body)


def outcome(shown: Recommendation) -> str:
    """Where the user's held-out test item ended up."""
    if shown.test_rank < 0:
        return "This user has no test item."
    return f"The held-out test item is number {shown.test_rank + 1} of all candidates."


def planted(shown: Recommendation) -> str:
    """What a generated shop's user was made to prefer; "" for a real user."""
    if not shown.preference:
        return ""
    shares = ", ".join(
        f"{name} {100 * float(value):.0f} %" for name, value in shown.preference.items()
    )
    return f"This user was generated to care about {shares}."


def _item(item: Shown, folder: PictureFolder | None, place: int | None = None) -> str:
    number = "" if place is None else f'<span class="place">{place}</span>'
    hit = f"<strong>its {item.held_out} item</strong>" if item.held_out else ""
    picture = _picture(item, folder)
    kind = ' class="hit"' if item.held_out == "test" else ""
    return f'<li{kind}>{picture}{number}<div class="title">{hit}{shell.text(item.title)}</div></li>'


def _picture(item: Shown, folder: PictureFolder | None) -> str:
    """The picture as a data URI, or a place where it would be."""
    none = '<div class="picture none">no picture</div>'
    if folder is None or not item.picture:
        return none
    try:
        picture = folder.open(item.picture)
    except PictureError:
        return none
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    content, alternative = base64.b64encode(file.getvalue()).decode(), shell.text(item.title)
    return f'<img class="picture" alt="{alternative}" src="data:image/jpeg;base64,{content}">'
