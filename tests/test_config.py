"""Every option composes and is checked; every fault is named at once; nothing but this package is ever a target."""

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import ROOT
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from likeness.assembly import (  # noqa: F401 - every room is imported here, so that a test can see what else is
    filling,
    projecting,
    reporting,
)
from likeness.config import targets
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.config.nodes import faults
from likeness.config.refusals import refused
from likeness.config.targets import allowed, files_of, recorded, restored
from likeness.errors import LikenessError
from likeness.runs import launch  # noqa: F401 - the same

CONF = ROOT / "conf"
GIVEN = {  # what an option leaves open
    "data=folder": ["data.root=x"],
    "data=manifest": ["data.manifest=x.csv"],
    "backbone=squeezenet1_1_caffe": ["backbone.weights=x.pth"],
    "thesis_backbone=squeezenet1_1": ["backbone.weights=x.pth"],
    **{f"logger={name}": [f"logger.{name}.folder=x"] for name in ("csv", "wandb", "tensorboard", "mlflow")},
}
PARTS = ("thesis",)  # what other options are built from; no option is in it
OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.stem != "as_trained" and path.parent.name not in PARTS
]


def composed(*overrides: str, name: str = "train") -> dict[str, Any]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return checked(compose(name, list(overrides)))


def trained(*overrides: str) -> dict[str, Any]:
    """The training config of pictures in a folder, with nothing that needs a run's own folder."""
    given = {part.split("=")[0] for part in overrides}
    base = {"data": ["data=folder", "data.root=x"], "logger": ["logger=none"]}
    return composed(*(part for group, parts in base.items() if group not in given for part in parts), *overrides)


def refusal(*overrides: str, name: str = "train") -> LikenessError:
    with pytest.raises((LikenessError, HydraException, OmegaConfBaseException)) as caught:
        composed(*overrides, name=name) if name != "train" else trained(*overrides)
    return caught.value if isinstance(caught.value, LikenessError) else refused(caught.value)


def node(target: str, **options: Any) -> dict[str, Any]:
    return {"_target_": target, **options}


def written(group: str, name: str) -> dict[str, Any] | None:
    """The node that an option's file spells out, with what it takes from its neighbours; None where it spells none."""
    file = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    package = (CONF / group / f"{name}.yaml").read_text().partition("\n")[0].removeprefix("# @package ")
    beside = [part for part in file.pop("defaults", []) if isinstance(part, str)]
    if package == "_global_":
        return file.get(group)
    inherited = {key: value for part in beside for key, value in written(group, part).items()}
    return inherited | file


DENSE = "likeness.heads.dense.Dense"


def test_the_options_were_found():
    assert len(OPTIONS) > 40
    assert {"noise=gaussian", "data=folder", "logger=mlflow", "scheduler=none", "architecture=pca"} <= set(OPTIONS)
    assert {"protocol=as_published", "protocol=mended", "thesis_backbone=squeezenet1_1"} <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_checked(option):
    group, _, name = option.partition("=")
    config = trained(option, *GIVEN.get(option, []))
    spelled = written(group, name)
    if name != "none" and spelled is not None and group in config:
        assert config[group].keys() == spelled.keys()
        if "${" not in str(target := spelled.get("_target_")):
            assert config[group].get("_target_") == target


@pytest.mark.parametrize("group", ["protocol", "experiment", "thesis_backbone", "launcher", "sweeper"])
def test_what_only_changes_other_options_leaves_none_of_its_own(group):
    assert group not in trained()
    assert refusal(f"{group}.x=1").code == "CONFIG"


def test_the_thesis_is_told_what_its_rows_refer_to():
    mended = {
        "output": "identity",
        "odd_output": "identity",
        "scaling": "standardize",
        "gaussian": "likeness.heads.noise.Gaussian",
        "imagenet_std": 1.0,
        "size": 224,
        "places": {"channels": "bgr", "scale": 1.0, "mean": [104.006, 116.669, 122.679], "std": [1.0, 1.0, 1.0]},
    }
    published = {
        "output": "sigmoid",
        "odd_output": "softmax",
        "scaling": "none",
        "gaussian": "likeness.heads.noise.GaussianAsPublished",
        "imagenet_std": 255.0,
    }
    assert trained()["thesis"] == trained("protocol=mended")["thesis"] == mended
    assert trained("protocol=as_published")["thesis"] == mended | published


@pytest.mark.parametrize("override", ["+thesis.outptu=relu", "+thesis.places.means=[0,0,0]"])
def test_a_misspelt_option_of_the_thesis_is_refused(override):
    assert "; did you mean " in refusal(override).where


def test_a_target_that_the_thesis_refers_to_is_checked_as_any_other():
    error = refusal("noise=thesis_gaussian", "thesis.gaussian=os.system")
    assert (error.code, error.where[:31]) == ("CONFIG-TARGET", "noise._target_: os.system is no")


def test_the_defaults_are_the_typed_roots():
    config = trained()
    assert (config["batch_size"], config["seed"], config["debug"]) == (128, 0, False)
    voting = {"vote_k": 5, "vote_weights": "uniform"}
    assert config["metric"] == {"ks": [1, 5], "exclude_home": False, "ties": "by_id", **voting, "map_at_r": True}
    assert config["scheduler"] is None
    assert config["logger"] == {}
    assert list(config["callbacks"]) == ["early_stopping", "best", "resume"]


def test_the_store_follows_the_environment_then_the_outputs(monkeypatch):
    monkeypatch.delenv("LIKENESS_STORE", raising=False)
    assert trained("paths.outputs=out")["paths"]["store"] == "out/features"
    monkeypatch.setenv("LIKENESS_STORE", "/fast/features")
    assert trained()["paths"]["store"] == "/fast/features"


def test_evaluation_composes_with_all_that_training_decided_left_open(monkeypatch):
    monkeypatch.delenv("LIKENESS_STORE", raising=False)
    config = composed("run=outputs/train/x", name="evaluate")
    assert config["run"] == "outputs/train/x"
    assert set(config["data"].values()) == set(config["backbone"].values()) == {None}
    assert config["metric"].keys() == trained()["metric"].keys()
    assert set(config["metric"].values()) == {None}
    assert config["paths"]["store"] is None


@pytest.mark.parametrize("data", ["folder", "manifest"])
def test_evaluation_composes_on_other_pictures(data):
    config = composed("checkpoint=a.ckpt", f"data={data}", *GIVEN[f"data={data}"], "metric.ks=[1,10]", name="evaluate")
    assert config["data"]["_target_"].startswith("likeness.images.")
    assert config["metric"]["ks"] == [1, 10]


def test_all_faults_are_named_at_once_each_with_its_path():
    error = refusal(
        "architecture=dense",
        "optimizer.lr=abc",
        "architecture.widths=x",
        "+architecture.widht=3",
        "architecture.activation=reluu",
        "trainer.max_epochs=1.5",
        "noise=gaussian",
        "noise.std=[1]",
        "+noise.sdt=1",
        "+batchsize=3",
        "+extraction.wokers=2",
        "loss._target_=torch.nn.Linear",
        "data.root=???",
    )
    assert (error.code, error.exit_code) == ("CONFIG", 78)
    assert "11 faults" in error.what
    assert sorted(error.where.splitlines()) == [
        "architecture.activation: 'reluu' is not one of relu, elu, gelu, tanh, sigmoid, softmax, identity",
        "architecture.widht: unknown to Dense; did you mean widths?",
        "architecture.widths: 'x' is not Sequence[int]",
        "batchsize: unknown; did you mean batch_size?",
        "data.root: missing, give it with data.root=…",
        "extraction.wokers: unknown; did you mean workers?",
        "loss._target_: torch.nn.Linear is not allowed (allowed: this package, 15 names of others)",
        "noise.sdt: unknown to Gaussian; did you mean std?",
        "noise.std: [1] is not float",
        "optimizer.lr: 'abc' is not float | torch.Tensor",
        "trainer.max_epochs: 1.5 is not Optional[int]",
    ]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (node(DENSE, widths=[8], l1="0.1"), "x.l1: '0.1' is not float"),
        (node(DENSE, widths=[8], tied=1), "x.tied: 1 is not bool"),
        (node(DENSE, widths=[8.5]), "x.widths: [8.5] is not Sequence[int]"),
        (node(DENSE, widths=8), "x.widths: 8 is not Sequence[int]"),
        (node(DENSE, widths=None), "x.widths: None is not Sequence[int]"),
        (node(DENSE, widths=[8], activation="swish"), "x.activation: 'swish' is not one of relu, elu, gelu, tanh, "),
        (node("likeness.images.folder.ImageFolder"), "x.root: missing, ImageFolder needs it"),
        (node(DENSE, widths=[8], feature_shape=[3]), "x.feature_shape: unknown to Dense"),
        (node("likeness.heads.linear.PCA", width=True), "x.width: True is not int"),
        (node("likeness.heads.noise.NoNoise", args=1), "x.args: unknown to NoNoise (it takes no option)"),
        (node("likeness.heads.noise.Gaussian", std=0.1, _recursive_=False), "x._recursive_: unknown to Gaussian"),
        (node("likeness.heads.noise.Gaussian", std=0.1, _convert_="all"), "x._convert_: unknown to Gaussian"),
        (node("likeness.images.demo.DrawnRooms", root=None), "x.root: None is not str"),
        (node("likeness.images.demo.DrawnRooms", root="???"), "x.root: missing, give it with x.root=…"),
        (node("torch.optim.AdamW", _partial_=True, lr=True), "x.lr: True is not float | torch.Tensor"),
        (node("torch.optim.AdamW", _partial_=True, betta=1), "x.betta: unknown to AdamW; did you mean betas?"),
    ],
)
def test_a_value_of_another_type_is_named(found, told):
    (fault,) = faults(found, "x")
    assert fault.startswith(told)


@pytest.mark.parametrize(
    "right",
    [
        node(DENSE, widths=[256, 128], l1=0),  # an integer for a float, a list for a sequence
        node("torch.optim.AdamW", _partial_=True, lr=1, betas=[0.9, 0.99]),  # a list for a tuple
        node("likeness.heads.noise.Gaussian", std=1),
        node("pytorch_lightning.Trainer", devices="auto", max_epochs=None, fast_dev_run=True),
        node("pytorch_lightning.Trainer", devices=[0], limit_train_batches=3),
        node("torch.optim.SGD", _partial_=True),  # what a partial lacks is given later
    ],
)
def test_what_yaml_can_spell_for_a_type_passes(right):
    assert list(faults(right)) == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("batch_size=0", "batch_size: 0 is less than 1"),
        ("seed=-1", "seed: -1 is less than 0"),
        (f"seed={2**63}", f"seed: {2**63} is greater than {2**63 - 1}"),
        ("optimizer.lr=-0.1", "optimizer.lr: -0.1 is less than 0"),
        ("optimizer.lr=nan", "optimizer.lr: nan is less than 0"),
        ("extraction.workers=0", "extraction.workers: 0 is less than 1"),
        ("metric.ties=nope", "metric.ties: 'nope' is not one of by_id, pessimistic"),
        ("metric.vote_weights=nope", "metric.vote_weights: 'nope' is not one of uniform, similarity"),
        ("metric.ks=[]", "metric.ks: [] must be different numbers from 1 up"),
        ("metric.ks=[5]", "metric.ks: [5] must be different numbers from 1 up, and have 1 among them"),
        ("metric.ks=[1,1]", "metric.ks: [1, 1] must be different numbers"),
        ("figures.split=tets", "figures.split: 'tets' is not one of train, val, test"),
        (
            "callbacks.best.monitor=val/hit@1",
            "callbacks.best.monitor: val/hit@1 is judged each epoch, and needs hits_every_n_epochs=1",
        ),
        ("callbacks.best.monitor=val/los", "callbacks.best.monitor: 'val/los' is not one of"),
    ],
)
def test_a_value_without_meaning_is_refused_before_anything_is_opened(override, told):
    (fault,) = refusal(override).where.splitlines()
    assert fault.startswith(told)


@pytest.mark.parametrize("option", ["split", "gallery"])
def test_evaluation_refuses_an_unknown_split(option):
    error = refusal("run=x", f"{option}=tets", name="evaluate")
    assert error.where == f"{option}: 'tets' is not one of train, val, test, unlabelled, all"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rejection.rate=0"], "rejection.rate: 0.0 is not a share between 0 and 1"),
        (["rejection.rate=5"], "rejection.rate: 5.0 is not a share between 0 and 1"),
        (["rejection.k=0"], "rejection.k: 0 is less than 1"),
        (["rejection.outside=x", "rejection.left_out=[y]"], "rejection: give outside or left_out, not both"),
    ],
)
def test_a_rejection_without_meaning_is_refused(overrides, told):
    assert refusal("run=x", *overrides, name="evaluate").where.startswith(told)


def test_what_is_mandatory_is_asked_for_by_its_path():
    assert refusal("data=folder").where == "data.root: missing, give it with data.root=…"
    assert refusal("data=manifest").where == "data.manifest: missing, give it with data.manifest=…"
    for preprocessing in ("places365", "torchvision"):  # the latter refers to the weights: nothing can be resolved
        told = refusal("backbone=squeezenet1_1_caffe", f"preprocessing={preprocessing}").where
        assert told == "backbone.weights: missing, give it with backbone.weights=…"
    assert "backbone.weights: missing" in refusal("thesis_backbone=squeezenet1_1").where
    assert refusal("~noise").where == "noise: missing, give it with noise=…"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+callbacks.extra=5", "callbacks.extra: 5 names no class (_target_)"),
        ("+logger.extra={folder: x}", "logger.extra: {'folder': 'x'} names no class (_target_)"),
        ("~noise._target_", "noise: {} names no class (_target_)"),
        ("+optimizer.inner={_target_: os.system}", "optimizer.inner"),
    ],
)
def test_a_part_that_names_no_class_is_refused_before_anything_is_opened(override, told):
    assert told in refusal(override).where


HOSTILE = [
    "os.system",
    "os.popen",
    "posix.system",
    "nt.system",
    "subprocess.Popen",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.loads",
    "shutil.rmtree",
    "pathlib.Path",
    "pathlib.Path.unlink",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Linear",
    "torch.optim.Optimizer.__init__.__globals__",
    "torch.optim.os.system",
    "torch.serialization.os.system",
    "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.callbacks.Callback",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "logging.os.system",
    "likeness.__version__",
    "likeness.config.composing.register",
    "likeness.config.targets.importlib.import_module",
    "likeness.assembly.building.build",
    "likeness.files.os.system",
    "likeness.files.write_atomic",
    "likeness.heads.dense.torch.load",
    "likeness.heads.dense.nn",
    "likeness.heads.dense.Dense.__init__",
    "likeness.heads.dense.LikenessError",
    "likeness.heads.dense._ACTIVATIONS",
    "likeness.heads.dense.nothing",
    "likeness.heads.nothing.Dense",
    "likeness.heads.Dense",
    "likeness.features.weights._fetch",
    "likeness.features.weights.urllib.request.urlopen",
    "likeness.features.weights.load_file",
    "likeness.features.store.shutil",
    "likeness.runs.checkpoint.pickle.loads",
    "likeness.runs.checkpoint.torch.load",
    "likeness.runs.launch.log",
    "likeness.heads.dense.Dense ",
    " likeness.heads.dense.Dense",
    "likeness.heads.dense.Dense\x00",
    "likeness.heads..dense.Dense",
    ".likeness.heads.dense.Dense",
    "likeness.heads.dense.",
    "likeness/heads/dense.Dense",
    "likeness.runs.launch.os.system",
    "likeness.runs.sweep.subprocess.run",
    "likeness.runs.queue.executor",
    "likeness.features.weights.download",
    "likeness.features.convert.convert",
    "likeness.reports.page.write_page",
    "likeness.archive.read_archive",
    "functools.partial",
    "operator.methodcaller",
    "builtins.getattr",
    "ctypes.CDLL",
    "socket.create_connection",
    "shelve.open",
    "torch.jit.load",
    "torch.nn.MSELoss.__init__",
    "torch.optim.AdamW.register_step_post_hook",
    "pytorch_lightning.Trainer.fit",
    "pytorch_lightning.Trainer.__init__.__globals__",
    "numpy.load",
    "hostile_module.run",
    "",
    None,
    5,
    ["os.system"],
    {"_target_": "os.system"},
]


def packages() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


@pytest.fixture(scope="module")
def plugins() -> None:
    """Hydra looks through its plugins when it composes for the first time."""
    trained()


@pytest.fixture
def watched(tmp_path, monkeypatch, plugins):
    """What is imported while a test runs; a module that tells when it is imported waits on the path."""
    (tmp_path / "hostile_module.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked: list[str] = []

    def import_module(name: str) -> Any:
        asked.append(name)
        return importlib.import_module(name)

    monkeypatch.setattr(targets, "importlib", SimpleNamespace(import_module=import_module))
    before = packages()
    yield asked
    assert packages() == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault("F46")
@pytest.mark.parametrize("target", HOSTILE, ids=repr)
def test_a_hostile_target_is_refused_and_nothing_outside_the_rooms_is_imported(target, watched):
    with pytest.raises(LikenessError) as caught:
        allowed(target)
    assert (caught.value.code, caught.value.exit_code) == ("CONFIG-TARGET", 78)
    assert [name for name in watched if name.split(".")[:2] not in (["likeness", room] for room in targets.ROOMS)] == []


EVIL = {"_target_": "hostile_module.run"}
PLACES = [
    ({"a": EVIL}, "a."),
    ({"a": {"b": [1, [{"c": EVIL}]]}}, "a.b[1][0].c."),
    ([[[EVIL]]], "[0][0][0]."),
    (node(DENSE, widths=EVIL), "widths."),
    (node(DENSE, widths=[8, EVIL]), "widths[1]."),
    (node(DENSE, widths=[8], unknown={"deep": [EVIL]}), "unknown.deep[0]."),
    (node("torch.optim.AdamW", _partial_=True, lr=EVIL), "lr."),
    (node("pytorch_lightning.Trainer", callbacks=[node(DENSE, widths=[EVIL])]), "callbacks[0].widths[0]."),
    ({"_target_": "os.system", "command": EVIL}, "command."),
]


@pytest.mark.fault("F46")
@pytest.mark.parametrize(("config", "path"), PLACES, ids=[path for _, path in PLACES])
def test_a_hostile_target_is_found_wherever_it_hides(config, path, watched):
    assert any(fault.startswith(f"{path}_target_: hostile_module.run is not allowed") for fault in faults(config, ""))


# What Hydra itself would call, import or write to before a job begins.
OF_HYDRA = [
    "+hydra.callbacks.x._target_=os.system",
    "+hydra.callbacks.x._target_=logging.os.system",
    "+hydra.callbacks.x={_target_: hostile_module.run}",
    "+hydra.callbacks.x={_target_: likeness.reports.sweep.EndOfSweep, more: {_target_: os.system}}",
    "+hydra.callbacks.x={_target_: likeness.reports.sweep.EndOfSweep, more: [{_target_: os.system}]}",
    "hydra.callbacks.scoreboard._target_=functools.partial",
    "hydra.callbacks.scoreboard._target_=${oc.decode:os.system}",
    "hydra.callbacks.scoreboard._target_=hydra_plugins.likeness_launchers.os.system",
    "hydra.launcher._target_=os.system",
    "hydra.sweeper._target_=hostile_module.run",
    "+hydra.sweeper.sampler._target_=optuna.samplers.os.system",
    "+hydra.sweeper.sampler._target_=os.system",
    "+hydra.job_logging.handlers.x={class: subprocess.Popen, args: [true]}",
    "hydra.job_logging.handlers.console.stream=ext://os.system",
    "+hydra.job_logging.handlers.x={class: logging.FileHandler, filename: ext://os.environ}",
    "hydra.hydra_logging.handlers.console.class=hostile_module.run",
]


@pytest.mark.fault("F46")
@pytest.mark.parametrize("override", OF_HYDRA)
def test_what_hydra_would_call_is_refused_before_it_is(override, watched):
    error = refusal(override)
    assert (error.code, error.exit_code) == ("CONFIG-TARGET", 78)
    assert override.lstrip("+").partition("=")[0].partition("._target_")[0] in error.where


@pytest.mark.parametrize(
    "option", ["launcher=joblib", "launcher=slurm", "sweeper=optuna", "hydra/job_logging=disabled"]
)
def test_hydras_own_plugins_pass(option):
    assert trained(option)["seed"] == 0


@pytest.mark.fault("F46")
def test_files_from_elsewhere_are_checked_as_our_own(tmp_path, watched):
    """``hydra.searchpath`` adds places of files, and nothing to what they may say."""
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "evil.yaml").write_text("_target_: hostile_module.run\n")
    (tmp_path / "noise" / "fine.yaml").write_text("_target_: likeness.heads.noise.Gaussian\nstd: 0.25\n")
    place = f"hydra.searchpath=[file://{tmp_path}]"
    assert trained(place, "noise=fine")["noise"]["std"] == 0.25
    assert refusal(place, "noise=evil").code == "CONFIG-TARGET"
    (tmp_path / "experiment").mkdir()
    for hidden in ("callbacks: {x: {_target_: hostile_module.run}}", "job_logging: {handlers: {x: {(): os.system}}}"):
        (tmp_path / "experiment" / "evil.yaml").write_text(f"# @package _global_\nhydra:\n  {hidden}\n")
        assert refusal(place, "experiment=evil").code == "CONFIG-TARGET"


SECRETS = {"HF_TOKEN": "canary0hugging", "AWS_SECRET_ACCESS_KEY": "canary0/aws+x", "DB_PASSWORD": "canary0base"}


@pytest.mark.fault("F46")
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.root=${oc.env:HF_TOKEN}", "data.root: the value of HF_TOKEN"),
        ("data.root='a/${oc.env:HF_TOKEN}/b'", "data.root: the value of HF_TOKEN"),
        ("data.root='${oc.env:${thesis.output}}'", "data.root: the value of HF_TOKEN"),
        ("data.root=canary0base", "data.root: the value of DB_PASSWORD"),
        ("+callbacks.x={_target_: a.b, c: [1, {d: '${oc.env:AWS_SECRET_ACCESS_KEY}'}]}", "the value of AWS_SECRET_ACC"),
        ("data.root='https://me:canary0url@host/x'", "data.root: a URL with a password"),
        ("hydra.run.dir=${oc.env:HF_TOKEN}", "hydra.run.dir: the value of HF_TOKEN"),
    ],
)
def test_a_secret_in_a_config_is_refused_and_not_repeated(override, told, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    error = refusal(override, *(["thesis.output=HF_TOKEN"] if "thesis" in override else []))
    assert (error.code, error.exit_code) == ("CONFIG-SECRET", 78)
    assert told in error.where
    assert "canary0" not in str(error)


def test_what_hydra_says_of_a_value_does_not_repeat_a_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary0hugging")
    error = refusal("batch_size=${oc.env:HF_TOKEN}")
    assert "Value '<HF_TOKEN>' of type 'str' could not be converted" in error.what
    assert "canary0" not in str(error)


def test_what_is_no_secret_passes(monkeypatch, tmp_path):
    for name, value in {"KEYBOARD": "german0layout", "MY_KEY": "short", "CREDENTIALS": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for root in ("german0layout", "short", str(tmp_path), "http://host:80/a@b"):
        assert trained("data=folder", f"data.root='{root}'")["data"]["root"] == root


def test_a_config_whose_only_faults_are_targets_says_so():
    error = refusal("noise._target_=hostile_module.run", "loss._target_=os.system")
    assert (error.code, error.exit_code) == ("CONFIG-TARGET", 78)
    assert "2 faults" in error.what
    assert error.kept == "Nothing was opened or computed yet."


def test_every_public_class_of_the_rooms_is_allowed():
    assert allowed(DENSE).__name__ == "Dense"
    assert allowed("likeness.runs.trackers.csv_logger").__name__ == "csv_logger"
    assert allowed("torch.nn.MSELoss").__name__ == "MSELoss"
    assert {"dense", "conv", "linear", "noise", "scaling", "loss", "autoencoder"} <= set(files_of("heads"))


@pytest.mark.parametrize(
    ("room", "plain"),
    [
        ("heads", node(DENSE, widths=[8, 4], tied=False)),
        ("heads", node("likeness.heads.linear.Identity")),
        ("images", node("likeness.images.decoding.Decoder", alpha_background=[0, 0, 0])),
        ("features", node("likeness.features.backbone.Backbone", name="resnet50", weights="default")),
    ],
)
def test_a_node_comes_back_from_its_record_and_the_record_names_no_module(room, plain):
    record = recorded(plain)
    assert record["class"] == plain["_target_"].rpartition(".")[2]
    assert "likeness." not in str(record)
    assert restored(room, record) == plain


@pytest.mark.parametrize(
    "record",
    [{"class": "Nonesuch"}, {"class": "Module"}, {"class": "_ACTIVATIONS"}, {"class": None}, {}, "Dense", None],
)
def test_a_record_of_an_unknown_class_is_refused(record):
    with pytest.raises(LikenessError, match="has no such class") as caught:
        restored("heads", record)
    assert (caught.value.code, caught.value.exit_code) == ("CKPT-SCHEMA", 65)


def test_a_class_is_looked_for_in_its_own_room_only():
    with pytest.raises(LikenessError, match="'Dense', and images has no such class"):
        restored("images", {"class": "Dense", "widths": [8]})


@pytest.mark.fault("F46")
@pytest.mark.parametrize(
    "record",
    [
        {"class": "Dense", "_target_": "os.system"},
        {"class": "Dense", "_target_": "likeness.runs.checkpoint.write_checkpoint"},
        {"class": "Dense", "widths": [{"_target_": "likeness.features.weights.download", "url": "http://x"}]},
        {"class": "Dense", "activation": "${oc.env:HOME}"},
        {"class": "Dense", "widths": [["a ${oc.env:WANDB_API_KEY}"]]},
        {"class": "Dense", "${oc.env:HOME}": 1},
    ],
)
def test_a_record_that_says_what_to_import_or_to_resolve_is_refused(record, watched):
    with pytest.raises(LikenessError) as caught:
        restored("heads", record)
    assert (caught.value.code, caught.value.exit_code) == ("CKPT-UNTRUSTED", 77)


def test_an_unknown_option_of_a_group_lists_the_known_ones():
    error = refusal("noise=gausian")
    assert (error.code, error.exit_code) == ("CONFIG", 78)
    assert "noise/gausian" in error.what
    assert {"gaussian", "masking", "salt_and_pepper", "none"} <= set(error.cause.splitlines())


@pytest.mark.parametrize("value", ["photos (new)", "a[b", "a{b", "a=b c)"])
def test_a_value_that_hydra_cannot_read_is_answered_with_how_to_quote_it(value):
    error = refusal(f"data.root={value}", "data=folder", "logger=none")
    assert f"""data.root="'{value}'\"""" in error.fix
    assert trained("data=folder", f"data.root='{value}'")["data"]["root"] == value


@pytest.mark.parametrize(
    ("override", "where", "fix"),
    [
        ("batchsize=3", "batchsize", "Did you mean batch_size?"),
        ("extraction.worker=3", "extraction.worker", "Did you mean extraction.workers?"),
        ("trainer.max_epoch=3", "trainer.max_epoch", "Did you mean trainer.max_epochs?"),
        ("scheduler.patience=3", "scheduler.patience", "--help lists the groups"),
    ],
)
def test_a_misspelt_option_gets_a_suggestion(override, where, fix):
    error = refusal(override)
    assert error.where == where
    assert fix in error.fix
    assert "+" not in error.cause  # adding it would be refused as well


@pytest.mark.parametrize("override", ["batch_size=abc", "metric.ks=[a]", "extraction.memory_gb=x", "debug=7.5"])
def test_a_value_of_the_wrong_type_in_a_typed_root_is_explained(override):
    error = refusal(override)
    assert override.partition("=")[0] in f"{error.where} {error.what}"
    assert "Value '" in error.cause
    assert "Did you mean" not in error.fix


def test_an_interpolation_to_nowhere_is_named():
    error = refusal("seed=${nope}")
    assert (error.code, error.where) == ("CONFIG", "seed")
    assert "nope" in error.what
