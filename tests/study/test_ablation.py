from fedvlr_jax.config import Config
from fedvlr_jax.study import ablation


def test_parts_that_are_not_there_are_not_taken_out():
    assert ablation.parts(Config.of(client_solver="sgd").method) == []


def test_every_part_of_the_learner_is_taken_out_by_settings_that_go_together():
    given = {"client_solver": "exact", "warm_start": "spectral", "experts": "neighbours"}
    given |= {"server_lr": 0.0, "router_lr": 1.0, "als_passes": 2}
    changes = ablation.parts(Config.of(**given).method)
    changed = {change.label[1]: Config.of(**given | change.settings).method for change in changes}
    assert set(changed) == {
        "exact head",
        "spectral start",
        "alternating passes",
        "neighbours",
        "router",
    }
    assert changed["exact head"].client_solver == "sgd"
    assert changed["exact head"].warm_start == "spectral"
    assert changed["spectral start"].warm_start == "none"
    assert changed["spectral start"].als_passes == changed["alternating passes"].als_passes == 0
    assert changed["alternating passes"].warm_start == "spectral"
    stepped = Config.of(client_solver="sgd").method
    assert changed["spectral start"].server_lr == stepped.server_lr > 0
    assert changed["exact head"].local_epochs == stepped.local_epochs > 1
    assert changed["neighbours"].experts == "none"
    assert changed["neighbours"].warm_start == "spectral"
    assert changed["router"].router_lr == 0
    assert len({change.name for change in changes}) == 5
