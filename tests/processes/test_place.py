import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.processes.place import Place, first_node, place_of_flags, place_of_slurm


def test_flags_name_a_place():
    assert place_of_flags(None, None, None) is None
    assert place_of_flags("node1:4000", 3, 2) == Place("node1", 4000, 3, 2)
    assert place_of_flags("[::1]:4000", 3, 2) == Place("::1", 4000, 3, 2)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("node1:4000", None, 0), "--num_processes: missing, expected --coordinator=HOST:PORT"),
        ((None, 2, 0), "--coordinator: missing"),
        (("node1", 2, 0), "--coordinator=node1: expected HOST:PORT of process 0"),
        (("node1:x", 2, 0), "--coordinator=node1:x: expected HOST:PORT"),
        (("node1:70000", 2, 0), "--coordinator=node1:70000: expected HOST:PORT"),
        ((":4000", 2, 0), "--coordinator=:4000: expected HOST:PORT"),
        (("node1:0", 2, 0), "--coordinator=node1:0: expected HOST:PORT"),
        (("node1:-1", 2, 0), "--coordinator=node1:-1: expected HOST:PORT"),
        (("::1:4000", 2, 0), "--coordinator=::1:4000: expected HOST:PORT"),
        (("[::1]", 2, 0), "--coordinator=[::1]: expected HOST:PORT"),
        (("[::1:4000", 2, 0), "--coordinator=[::1:4000: expected HOST:PORT"),
        (("a b:4000", 2, 0), "--coordinator=a b:4000: expected HOST:PORT"),
        (("a..b:4000", 2, 0), "--coordinator=a..b:4000: expected HOST:PORT"),
        (("x" * 70 + ":4000", 2, 0), f"--coordinator={'x' * 70}:4000: expected HOST:PORT"),
        (("http://node1:4000", 2, 0), "--coordinator=http://node1:4000: expected HOST:PORT"),
        (("0.0.0.0:4000", 2, 0), "--coordinator=0.0.0.0:4000: that is every address of a host"),
        (("0:4000", 2, 1), "--coordinator=0:4000: that is every address of a host"),
        (("[::]:4000", 2, 1), "--coordinator=[::]:4000: that is every address of a host"),
        (("node1:4000", 0, 0), "--num_processes=0: expected at least 1"),
        (("node1:4000", 2, 2), "--process_id=2: expected 0 to 1 for --num_processes=2"),
        (("node1:4000", 2, -1), "--process_id=-1: expected 0 to 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, sentence):
    with pytest.raises(UserError) as refused:
        place_of_flags(*flags)
    assert str(refused.value).startswith(sentence)


# What srun sets, by its manual's section "OUTPUT ENVIRONMENT VARIABLES".
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


def test_srun_names_a_place():
    assert place_of_slurm({}) is None
    # A batch script itself is a step of one task, whatever the job asked for.
    assert place_of_slurm(STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "2"}) is None
    place = place_of_slurm(STEP)
    assert (place.host, place.count, place.index, place.local_device) == ("gpu007", 2, 1, None)
    assert 1024 < place.port < 32768, "above would be ports that the system gives to anybody"
    other = place_of_slurm(STEP | {"SLURM_STEP_ID": "3"})
    assert place.port != other.port, "two steps of a job may share a node"


def test_tasks_of_one_node_share_out_its_accelerators():
    shared = STEP | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}
    assert place_of_slurm(shared | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}).local_device == 3
    # With --gpus-per-task each sees one that is its own.
    assert place_of_slurm(shared | {"CUDA_VISIBLE_DEVICES": "0"}).local_device is None
    assert place_of_slurm(shared).local_device is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("a[007-9,12],b", "a007"),
        ("a[7,9]", "a7"),
        ("n-1[3]", "n-13"),
        ("rack[2-3]node[01,04],b", "rack2node01"),
        ("a[1-2]-ib", "a1-ib"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS=two: expected a whole number"),
        ({"SLURM_STEP_NUM_TASKS": ""}, "SLURM_STEP_NUM_TASKS=: expected a whole number"),
        ({"SLURM_STEP_NUM_TASKS": "-2"}, "SLURM_STEP_NUM_TASKS=-2: expected a whole number"),
        ({"SLURM_STEP_NUM_TASKS": "9" * 5000}, "SLURM_STEP_NUM_TASKS=999"),
        ({"SLURM_JOB_ID": "x"}, "SLURM_JOB_ID=x: expected a whole number"),
        ({"SLURM_STEP_ID": "1.5"}, "SLURM_STEP_ID=1.5: expected a whole number"),
        ({"SLURM_STEP_NUM_NODES": "2(x2)"}, "SLURM_STEP_NUM_NODES=2(x2): expected a whole number"),
        ({"SLURM_PROCID": ""}, "SLURM_PROCID=: expected a whole number"),
        ({"SLURM_PROCID": None}, "SLURM_PROCID=: expected a whole number"),
        ({"SLURM_PROCID": "2"}, "SLURM_PROCID=2: expected 0 to 1 for SLURM_STEP_NUM_TASKS=2"),
        (
            {"SLURM_LOCALID": "a", "SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
            "SLURM_LOCALID=a: expected a whole number",
        ),
        ({"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST=: expected a list of nodes"),
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST=: expected a list of nodes"),
        ({"SLURM_STEP_NODELIST": ","}, "SLURM_STEP_NODELIST=,: expected a list of nodes"),
        ({"SLURM_STEP_NODELIST": "a["}, "SLURM_STEP_NODELIST=a[: expected a list of nodes"),
        ({"SLURM_STEP_NODELIST": "a[]"}, "SLURM_STEP_NODELIST=a[]: expected a list of nodes"),
        ({"SLURM_STEP_NODELIST": "(null)]"}, "SLURM_STEP_NODELIST=(null)]: expected a list"),
    ],
)
def test_an_odd_environment_ends_in_a_sentence(more, sentence):
    environment = {k: v for k, v in (STEP | more).items() if v is not None}
    with pytest.raises(UserError) as refused:
        place_of_slurm(environment)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)
