"""Bad config is refused at once, with the key, the value and what would be right."""

import pytest

from fedapp.common.errors import ConfigError, DataError, FedappError
from fedapp.config import compose, instantiate, split_overrides, to_yaml
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards

DEFAULTS = {
    "federation.num_clients": 20,
    "federation.num_rounds": 60,
    "federation.fraction_train": 0.5,
    "federation.min_clients": 2,
    "federation.round_timeout": 600,
    "federation.target_accuracy": None,
    "federation.patience": None,
    "train.proximal_mu": 0.0,
    "strategy.weighting": "num_examples",
    "strategy.weight_cap": None,
    "strategy.max_update_norm": None,
    "run.seed": 0,
    "run.device": "auto",
    "run.num_supernodes": None,
    "run.threads_per_client": 1,
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_names_and_defaults_that_others_rely_on(key: str) -> None:
    section, name = key.split(".")
    assert getattr(getattr(compose([]), section), name) == DEFAULTS[key]


def test_fedavg_is_the_default_server_step() -> None:
    assert compose([]).strategy.server_optimizer == {"_target_": "torch.optim.SGD", "lr": 1.0}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("federation.num_round=3", ["federation.num_round", "did you mean federation.num_rounds"]),
        ("federation.num_rounds=abc", ["federation.num_rounds=abc", "Integer"]),
        ("federation.num_rounds=2.5", ["federation.num_rounds=2.5", "Integer"]),
        ("federation.fraction_train=1.5", ["federation.fraction_train=1.5", "at most 1"]),
        ("federation.fraction_train=0", ["federation.fraction_train=0", "greater than 0"]),
        ("federation.fraction_train=nan", ["federation.fraction_train=nan", "greater than 0"]),
        ("federation.num_clients=0", ["federation.num_clients=0", "at least 1"]),
        ("federation.num_clients=null", ["federation.num_clients", "not Optional"]),
        ("optimizer.lr=nan", ["optimizer.lr=nan", "finite"]),
        ("model=null", ["model=null", "a string or a list"]),
        ("strategy.server_optimizer=null", ["strategy.server_optimizer", "_target_", "conf/strategy"]),
        ("federation=null", ["federation"]),
        ("strategy.weighting=median", ["strategy.weighting=median", "num_examples, uniform, sqrt"]),
        ("train.val_fraction=1", ["train.val_fraction=1", "at most 0.9"]),
        ("data=nothing", ["data=nothing", "no option 'nothing'", "breast_cancer", "digits"]),
        ("dat=digits", ["dat", "did you mean data"]),
        ("optimizer.learning_rate=1", ["optimizer.learning_rate", "optimizer.lr"]),
        ("optimizer.nesterov=true", ["torch.optim.SGD has it", "+optimizer.nesterov=..."]),
        (
            "strategy.server_optimizer.momentum=0.9",
            ["torch.optim.SGD has it", "+strategy.server_optimizer.momentum=..."],
        ),
        ("optimizer.params=1", ["optimizer.params", "did you mean"]),
        ("+federation.extra=1", ["extra", "Federation"]),
        ("data=csv", ["data.label", "a value is needed", "data.label=..."]),
        ("nonsense", ["nonsense", "EQUAL"]),
    ],
)
def test_refused_while_composing(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "data._target_=os.system",
        "+model={_target_:os.system}",
        "optimizer={_target_:subprocess.Popen}",
        "hydra.run.dir=/tmp/x",
        "data.test_fraction=${oc.env:HOME}",
        "+hydra/launcher=basic",
        # Hydra's grammar takes the backslashes away, and what is left would be resolved or instantiated.
        r"run.output_dir=$\{oc.env:HOME\}",
        r"strategy.server_optimizer=$\{oc.decode:$\{run.output_dir\}\}",
        "data.test_fraction=[1,{_target_:os.system}]",
        "optimizer={'_target_': torch.hub.load}",
        "+data@_global_._x_=digits",
    ],
)
def test_overrides_cannot_choose_code_or_read_the_environment(override: str) -> None:
    with pytest.raises(ConfigError, match=r"under conf/|cannot be sent|Quote special|has no option"):
        compose([override])


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model=mlp", "model.hidden=[a]"], ["model.hidden=['a']", "list[int]"]),
        (["model=mlp", "model.hidden=8"], ["model.hidden=8"]),
        (["data.test_fraction=abc"], ["data.test_fraction='abc'", "float"]),
        (["+data.extra=1"], ["data.extra", "no such argument", "test_fraction"]),
        (["optimizer.lr=-1"], ["optimizer", "torch.optim.SGD", "-1"]),
        (["optimizer.lr=fast"], ["optimizer.lr='fast'"]),
        (["data=breast_cancer"], ["model=cnn", "model=mlp"]),
        (["model=torchvision", "model.name=resnet81"], ["model.name", "resnet81", "resnet18"]),
        (["task.metrics=[accurracy]"], ["task.metrics", "accurracy", "balanced_accuracy"]),
        (["task.metrics=[../task/horizontal]"], ["task.metrics=['../task/horizontal']", "auc, ", "balanced_accuracy"]),
        (["task/loss=huber"], ["task.loss=Huber", "classification", "task/loss=auto or task/loss=cross_entropy"]),
        (["task/loss=huber", "task.loss.delta=0"], ["task.loss.delta=0", "greater than 0"]),
        (["task/loss=huber", "+task.loss.slope=1"], ["task.loss.slope", "no such argument"]),
        (["task/loss=cross_entropy", "task.loss.label_smoothing=1"], ["task.loss.label_smoothing=1", "below 1"]),
        (["task/kind=regression"], ["task.kind=regression", "class", "auto"]),
        (
            ["data=synthetic", "data.num_classes=null", "task/kind=classification"],
            ["task.kind=classification", "number"],
        ),
        (
            ["data=synthetic", "data.num_classes=null", "federation.target_accuracy=0.5"],
            ["target_accuracy", "regression"],
        ),
        (["data=csv", "data.label=y", "data.path=table.csv"], ["data.path=table.csv", "absolute"]),
    ],
)
def test_refused_while_building(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_parts(compose(overrides))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def load_first_client(overrides: list[str]) -> None:
    config = compose(overrides)
    build_shards(config, build_parts(config)).of(0)


@pytest.mark.parametrize(
    ("overrides", "kind", "parts"),
    [
        (["federation.num_clients=5000"], ConfigError, ["federation.num_clients=5000", "1437"]),
        (["partition.partition_by=hospital"], ConfigError, ["partition.partition_by='hospital'"]),
        (["partition=natural", "+data.group=x"], FedappError, ["data.group"]),
    ],
)
def test_refused_while_splitting(overrides: list[str], kind: type[Exception], parts: list[str]) -> None:
    with pytest.raises(kind) as caught:
        load_first_client(overrides)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_device_that_does_not_exist_is_named() -> None:
    from fedapp.learning.training import resolve_device

    with pytest.raises(ConfigError, match=r"run.device=cuda:99"):
        resolve_device("cuda:99")
    with pytest.raises(ConfigError, match=r"run.device=toaster"):
        resolve_device("toaster")


def test_overrides_are_split_as_a_shell_does() -> None:
    assert split_overrides("data.path='/a b/c.csv' x=1") == ["data.path=/a b/c.csv", "x=1"]
    with pytest.raises(ConfigError, match="No closing quotation"):
        split_overrides("data.path='/a")


def test_the_resolved_config_is_plain_yaml() -> None:
    text = to_yaml(compose(["federation.num_clients=7"]))
    assert "num_clients: 7" in text
    assert "num_partitions: 7" in text
    assert "${" not in text
    assert "!!python" not in text


def test_data_errors_are_for_people(tmp_path: object) -> None:
    with pytest.raises(DataError, match="no such file"):
        build_parts(compose(["data=csv", "data.label=y", "data.path=/nowhere/table.csv", "model=mlp"]))


def test_fedprox_sets_the_proximal_term_and_can_be_overridden() -> None:
    assert compose([]).train.proximal_mu == 0.0
    assert compose(["strategy=fedprox"]).train.proximal_mu == 0.01
    assert compose(["strategy=fedprox", "train.proximal_mu=0.5"]).train.proximal_mu == 0.5
    assert compose(["strategy=fedprox"]).strategy == compose(["strategy=fedavg"]).strategy


def test_the_cosine_schedule_spans_the_run() -> None:
    config = compose(["lr_schedule@client_lr=cosine", "federation.num_rounds=17"])
    assert config.client_lr["T_max"] == 17
    assert config.server_lr["_target_"].endswith("ConstantLR")


def test_an_object_gets_a_copy_of_its_node_and_nothing_in_it_is_an_interpolation() -> None:
    node = {"_target_": "collections.UserDict", "names": ["${run.seed}"]}
    made = instantiate("data", node)
    assert made.data == {"names": ["${run.seed}"]}
    made["names"].append("more")
    assert node["names"] == ["${run.seed}"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"inside": {"_target_": "collections.Counter"}}, "data.inside._target_=collections.Counter: an argument"),
        ({"_partial_": True}, "data._partial_: no such argument"),
        ({"_args_": [1]}, "data._args_: no such argument"),
    ],
)
def test_code_inside_a_node_and_keys_of_hydra_are_refused_by_name(argument: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        instantiate("data", {"_target_": "collections.UserDict", **argument})


def test_of_several_overrides_the_wrong_one_is_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["optimizer.lr=0.1", "client_lr.gama=1"])
    assert "client_lr.gama" in str(caught.value)
    assert "optimizer.lr:" not in str(caught.value)
