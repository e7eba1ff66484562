"""docs/python.md, block by block in one session, on less data."""

import matplotlib.pyplot as plt
import numpy as np

import fedvlr_jax
from tests import worlds
from tests.docs.pages import DOCS, blocks, shape
from tests.docs.test_examples import SMALLER

PAGE = DOCS / "python.md"
LESS = SMALLER | {"[3, 14, 159]": "[3, 14, 29]", "target = 6": "target = 0.1"}


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for clients in (20, 40):
        config = worlds.config(clients=clients, items=40)
        fedvlr_jax.train(config, f"runs/clients/runs/clients={clients}")
    names, every = {}, blocks(PAGE)
    for block, below in zip(every, [*every[1:], None], strict=True):
        if block.language != "python":
            continue
        code = block.text
        for large, small in LESS.items():
            code = code.replace(large, small)
        exec(compile(code, str(PAGE), "exec"), names)
        said = capsys.readouterr().out
        if below is not None and below.language == "text":
            assert [*map(shape, said.splitlines())] == [*map(shape, below.text.splitlines())]
    plt.close("all")
    assert (tmp_path / "curve.png").is_file()
    assert (tmp_path / "rounds.png").is_file()
    assert names["rounds"].index.tolist() == [20, 40]
    runs = fedvlr_jax.open_sweep("runs/clients").values()
    score = "valid/warm/ndcg@50"
    first = [next(x["round"] for _, x in r.curve.iterrows() if x[score] >= 0.1) for r in runs]
    assert names["rounds"].tolist() == first
    assert not np.isin(names["shopper"].top(40), [3, 14, 29]).any()


def test_every_part_of_a_run_is_told_of():
    page = PAGE.read_text()
    for name in [*vars(fedvlr_jax.Run), *fedvlr_jax.Run.__annotations__]:
        if not name.startswith("_") and name not in ("folder", "data", "plugins"):
            assert f"`run.{name}" in page, name
