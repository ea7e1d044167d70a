"""Every row of the thesis as published and as mended: it composes, it trains, and each defect is really there."""

import re
from collections.abc import Callable
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from test_assembly import Shaped

from likeness.assembly import baselines, building, modules, reporting, scoring, training
from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Extractor, Features
from likeness.heads.autoencoder import Autoencoder
from likeness.images.decoding import Decoder
from likeness.images.preprocessing import Preprocessing
from likeness.images.table import Row, tabulate
from likeness.reports.replication import published
from likeness.retrieval.metric import score
from likeness.runs.folder import RunFolder

CONF = ROOT / "conf"
PROTOCOLS = ("as_published", "mended")
SPLITS = ("test", "val")
IMAGENET, PLACES = [103.939, 116.779, 123.68], [104.006, 116.669, 122.679]  # B, G, R
DEEP, DEEPER = [4096, 2048, 1028], [6000, 4000, 3000, 2000, 800]
# backbone, scheme, widths, noise; hit@1 of test and val, "top-5" of test and val, epochs: as the thesis prints them.
ROWS: dict[str, tuple] = {
    "baseline_resnet50_simple": ("ResNet50", "simple", None, None, 0.3333, 0.3421, 0.7038, 0.6711, None),
    "baseline_resnet50_imagenet": ("ResNet50", "imagenet", None, None, 0.3448, 0.3563, 0.6933, 0.6786, None),
    "baseline_resnet50_places": ("ResNet50", "places", None, None, 0.6438, 0.6664, 0.9038, 0.8982, None),
    "baseline_vgg16_fc1_simple": ("VGG16 fc_1", "simple", None, None, 0.5371, 0.5287, 0.8381, 0.8172, None),
    "baseline_vgg16_fc1_imagenet": ("VGG16 fc_1", "imagenet", None, None, 0.5390, 0.5457, 0.8362, 0.8180, None),
    "baseline_vgg16_fc1_places": ("VGG16 fc_1", "places", None, None, 0.7686, 0.7597, 0.9286, 0.9274, None),
    "table2_noise_03": ("VGG16 fc_1", "places", DEEP, 0.3, 0.764, 0.753, 0.919, 0.913, 212),
    "table2_noise_05": ("VGG16 fc_1", "places", DEEP, 0.5, 0.740, 0.735, 0.908, 0.904, None),
    "table3_2048": ("VGG16 fc_1", "places", [4096, 2048], None, 0.7819, 0.7729, 0.9371, 0.9444, 144),
    "table3_3072": ("VGG16 fc_1", "places", [4096, 3072], None, 0.7781, 0.7653, 0.9429, 0.9397, 107),
    "table3_512": ("VGG16 fc_1", "places", [4096, 512], None, 0.7714, 0.7832, 0.9448, 0.9519, 122),
    "table3_128": ("VGG16 fc_1", "places", [4096, 128], None, 0.7752, 0.7738, 0.9362, 0.9444, 149),
    "table4_resnet50_simple": ("ResNet50", "simple", [2048, 1028, 512], None, 0.324, 0.345, 0.698, 0.664, 15),
    "table4_resnet50_places": ("ResNet50", "places", [2048, 1028, 512], None, 0.659, 0.654, 0.926, 0.929, 275),
    "table4_vgg16_simple": ("VGG16 fc_1", "simple", DEEP, None, 0.541, 0.516, 0.830, 0.820, 1803),
    "table4_vgg16_places": ("VGG16 fc_1", "places", DEEP, None, 0.775, 0.764, 0.914, 0.934, 108),
    "table4_vgg16_deeper": ("VGG16 fc_1", "places", DEEPER, None, 0.745, 0.749, 0.900, 0.915, 95),
    "table5_resnet50_simple": ("ResNet50", "simple", [2048, 512], 0.3, 0.337, 0.331, 0.693, 0.697, 141),
    "table5_resnet50_imagenet": ("ResNet50", "imagenet", [2048, 512], 0.3, 0.341, 0.328, 0.704, 0.671, 137),
    "table5_resnet50_places": ("ResNet50", "places", [2048, 512], 0.3, 0.650, 0.661, 0.927, 0.911, 1232),
    "table5_vgg16_simple": ("VGG16 fc_1", "simple", [4096, 1028], 0.3, 0.528, 0.526, 0.818, 0.820, 0),
    "table5_vgg16_imagenet": ("VGG16 fc_1", "imagenet", [4096, 1028], 0.3, 0.534, 0.554, 0.820, 0.829, 0),
    "table5_vgg16_places": ("VGG16 fc_1", "places", [4096, 1028], 0.3, 0.778, 0.783, 0.915, 0.928, 338),
    "table6_fc1_deeper": ("VGG16 fc_1", "places", DEEPER, 0.6, 0.740, 0.735, 0.909, 0.904, 193),
    "table6_flatten": ("VGG16 flatten", "places", [6272, 3136, 1568], 0.3, 0.680, 0.654, 0.891, 0.896, 95),
    "table6_flatten_deeper": (
        *("VGG16 flatten", "places", [25088, 12544, 6272, 3136], 0.3),
        *(0.163, 0.172, 0.568, 0.605, 815),
    ),
    "table6_fc2": ("VGG16 fc_2", "places", DEEP, 0.5, 0.762, 0.734, 0.935, 0.932, 458),
    "table6_fc2_wider": ("VGG16 fc_2", "places", [5000, 3000, 1600], 0.3, 0.765, 0.724, 0.934, 0.933, 470),
    "extra_flatten_l1": ("VGG16 flatten", "places", [4096, 1028], 0.3, 0.1638, 0.1725, 0.5686, 0.6051, 815),
    "extra_fc1_deeper_softmax": ("VGG16 fc_1", "simple", DEEPER, None, None, None, None, None, None),
}
NETWORKS = {  # name, weights, layer, pooling, numbers
    "ResNet50": ("resnet50_caffe", "keras", "layer4", "avg", 2048),
    "VGG16 fc_1": ("vgg16", "places365", "classifier.1", "none", 4096),
    "VGG16 fc_2": ("vgg16", "places365", "classifier.4", "none", 4096),
    "VGG16 flatten": ("vgg16", "places365", "flatten", "none", 25088),
}
STAND_INS = {
    "shufflenet_rooms": ("shufflenet_v2_x0_5", "bundled", []),
    "squeezenet1_1": ("squeezenet1_1", "x.safetensors", ["backbone.weights=x.safetensors"]),
}
FITTED = [name for name in ROWS if not name.startswith("baseline")]
WIDTH = 128  # of the features that are drawn below


@cache
def composed(name: str, *overrides: str) -> dict[str, Any]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = ["data=folder", "data.root=/none", "logger=none", *overrides]
        return checked(compose("train", [f"experiment=thesis/{name}", *given]))


def config_of(name: str, protocol: str, **trainer: Any) -> dict[str, Any]:
    config = composed(name, f"protocol={protocol}")
    return {**config, "trainer": {**config["trainer"], "accelerator": "cpu", **trainer}}


@cache
def drawn(rows: int = 150) -> FeatureData:
    """Features as a ReLU leaves them, of three classes: not negative, and many above 1."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    values = (rng.normal(size=(rows, WIDTH)) + 2 * rng.normal(size=(3, WIDTH))[labels]).clip(0).astype(np.float32)
    splits = np.repeat(["train", "val", "test"], [rows * 3 // 5, rows // 5, rows // 5])
    listed = [Row(f"{i:03d}", "abc"[label], split) for i, (label, split) in enumerate(zip(labels, splits, strict=True))]
    features = Features(
        tabulate(Path("/none"), listed, 0, (0.6, 0.2, 0.2)),
        torch.from_numpy(values),
        np.zeros((rows, 32), np.uint8),
        0,
        rows,
    )
    return FeatureData(features, batch_size=32, seed=0)


def prepared(config: dict[str, Any], data: FeatureData, path: Path) -> tuple[Autoencoder, pl.Trainer, RunFolder]:
    extractor = Extractor(Decoder(), Preprocessing(size=8, mean=[0.0] * 3, std=[1.0] * 3), Shaped((WIDTH,)))
    card = modules.build_card(config, {"architecture": "x", "backbone": "y"}, extractor, data)
    folder = RunFolder(path, config)
    module = modules.build_head(config, data.feature_shape, card)
    return module, training.build_trainer(config, folder), folder


def test_the_published_figures_are_those_of_the_thesis():
    found = {}
    for name, row in published()["rows"].items():
        figures = [(row[split] or {}).get(measure) for measure in ("hit@1", "published_top5") for split in SPLITS]
        found[name] = (*(row[key] for key in ("backbone", "preprocessing", "widths", "noise")), *figures, row["epochs"])
    assert found == ROWS
    assert list(found) == list(ROWS)  # the order of every table
    assert published()["queries"] == {"test": 1050, "val": 1061}
    assert published()["kl"]["codes"] == {5: 1.85, 20: 1.80, 50: 1.56}
    assert published()["kl"]["features"] == {5: 3.22, 20: 2.99, 50: 2.55}


def test_there_is_an_experiment_a_row():
    assert {path.stem for path in (CONF / "experiment" / "thesis").glob("*.yaml")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_says_what_was_published(name):
    text = (CONF / "experiment" / "thesis" / f"{name}.yaml").read_text()
    (told,) = re.findall(r"^# Published: (.*)\.$", text, re.MULTILINE)
    *_, test, val, five_test, five_val, epochs = ROWS[name]
    ending = "" if epochs is None else f"; {epochs} epochs"
    figures = f"hit@1 {test} test, {val} val; ranks 2 to 6: {five_test}, {five_val}{ending}"
    assert told == ("nothing" if test is None else figures)
    assert f"python train.py experiment=thesis/{name} data=folder data.root=PHOTOS" in text


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_composes_to_what_the_thesis_says_of_it(name, protocol):
    config = composed(name, f"protocol={protocol}")
    network, scheme, widths, noise, *_ = ROWS[name]
    backbone, head = config["backbone"], config["architecture"]
    assert tuple(backbone[key] for key in ("name", "weights", "layer", "pooling")) == NETWORKS[network][:4]
    assert config["preprocessing"]["size"] == 224
    assert config["preprocessing"]["resize"] == "squash"
    assert config["preprocessing"]["mean"] == {"simple": [0.0] * 3, "imagenet": IMAGENET, "places": PLACES}[scheme]
    assert config["noise"].get("std") == noise
    if widths is None:
        assert head["_target_"].endswith(".Identity")
        assert config["scaling"]["kind"] == "none"
    else:
        assert (head["widths"], head["widths_for"]) == (widths, NETWORKS[network][4])
        assert head["l1"] == {"extra_flatten_l1": 1e-4, "extra_fc1_deeper_softmax": 1e-5}.get(name, 0.0)


@pytest.mark.parametrize("backbone", STAND_INS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_composes_with_another_backbone(name, backbone):
    """Half of the rows as published, half as mended, the other way about with the other backbone."""
    protocol = PROTOCOLS[(list(ROWS).index(name) + list(STAND_INS).index(backbone)) % 2]
    network, weights, given = STAND_INS[backbone]
    config = composed(name, f"protocol={protocol}", f"thesis_backbone={backbone}", *given)
    assert (config["backbone"]["name"], config["backbone"]["weights"]) == (network, weights)
    assert config["architecture"] == composed(name, f"protocol={protocol}")["architecture"]
    assert config["trainer"]["max_epochs"] < 2000
    own = composed(name, f"protocol={protocol}")["preprocessing"]
    if backbone == "squeezenet1_1":  # in Caffe's scheme itself
        assert config["preprocessing"] == own
    elif ROWS[name][1] == "places":
        assert config["preprocessing"]["channels"] == "rgb"
        assert config["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
        assert config["preprocessing"]["std"] == [0.229, 0.224, 0.225]
    else:
        assert {**own, "size": config["preprocessing"]["size"]} == config["preprocessing"]


def test_without_a_protocol_a_row_is_mended():
    bare, mended = composed("table5_resnet50_imagenet"), composed("table5_resnet50_imagenet", "protocol=mended")
    assert {**bare, "sweep": None} == {**mended, "sweep": None}  # whose name is the time of day


def grid_of(path: Path) -> dict[str, list[str]]:
    """Every value of each option that a sweep's file names, parents first; as Hydra reads them."""
    file = OmegaConf.to_container(OmegaConf.load(path))
    parents = [CONF / f"{name[1:]}.yaml" for name in file.get("defaults", []) if isinstance(name, str) and "/" in name]
    parents += [path.parent / f"{name}.yaml" for name in file.get("defaults", []) if name == "parallel"]
    params = file["hydra"].get("sweeper", {}).get("params", {})
    overrides = OverridesParser.create().parse_overrides([f"{name}={value}" for name, value in params.items()])
    own = {each.key_or_group: _values(each) for each in overrides}
    return {name: values for parent in parents for name, values in grid_of(parent).items()} | own


def _values(override: Any) -> list[str]:
    return (
        list(override.sweep_string_iterator())
        if override.is_sweep_override()
        else [override.get_value_element_as_str()]
    )


SWEEPS = sorted((CONF / "sweep").rglob("*.yaml"))


def test_the_sweeps_of_the_thesis_are_its_tables():
    tables = {path.stem: grid_of(path) for path in SWEEPS if path.parent.name == "thesis"}
    assert all(grid["protocol"] == list(PROTOCOLS) for grid in tables.values())
    names = {table: [name.removeprefix("thesis/") for name in grid["experiment"]] for table, grid in tables.items()}
    assert names.pop("all") == list(ROWS)
    counts = {table: len(rows) for table, rows in names.items()}
    assert counts == {"table1": 6, "table2": 2, "table3": 4, "table4": 5, "table5": 6, "table6": 5, "extra": 2}
    assert sorted(name for rows in names.values() for name in rows) == sorted(ROWS)
    for table, rows in names.items():
        assert {row.partition("_")[0] for row in rows} == {"baseline" if table == "table1" else table}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_sweep_composes_with_every_value_of_its_grid(path):
    """Each value of each option at least once, not every combination; a row of the thesis is composed above."""
    grid = {name: values for name, values in grid_of(path).items() if name not in ("seed", "experiment")}
    register()
    assert f"python train.py -m sweep={path.parent.name}/{path.stem} data=folder" in path.read_text()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in range(max(map(len, grid.values()))):
            chosen = [f"{name}={next(islice(cycle(values), job, None))}" for name, values in grid.items()]
            given = ["data=folder", "data.root=x", "logger=none", f"sweep={path.parent.name}/{path.stem}"]
            checked(compose("train", [*given, *chosen]))


@pytest.mark.filterwarnings("ignore:.*zero")  # a code after ReLU, four numbers wide, may be
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_and_is_scored(name, protocol, tmp_path):
    config, data = config_of(name, protocol, max_epochs=1), drawn()
    module, trainer, folder = prepared(config, data, tmp_path)
    training.fit(trainer, module, data, folder)
    methods = baselines.fit_methods(module, data, 0, folder)
    results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
    metrics = reporting.write_results(results, module, data, folder, trainer)
    for split in SPLITS:
        assert metrics["splits"][split]["n"] == 30
        assert {"hit@1", "hit@5", "published_top5"} <= metrics["splits"][split]["head"].keys()
    widths, whole = ROWS[name][2], NETWORKS[ROWS[name][0]][4]
    if widths is None:
        assert metrics["splits"]["test"]["head"] == metrics["splits"]["test"]["frozen"]
    else:
        assert metrics["widths"] == [round(width * WIDTH / whole) for width in widths]
        assert metrics["epochs"] == 1
    saved = training.checkpoint.open_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    assert saved.keys() == module.state_dict().keys()
    for part, value in module.state_dict().items():
        assert torch.equal(saved[part], value), part


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scheme", ["simple", "imagenet", "places"])
@pytest.mark.parametrize("network", ["resnet50", "vgg16"])
def test_imagenet_is_divided_by_255_as_published_alone(network, scheme, protocol):
    config = composed(f"table5_{network}_{scheme}", f"protocol={protocol}")
    rgb = np.array([200, 30, 90], np.uint8)
    found = building.build(config["preprocessing"]).normalize(torch.from_numpy(rgb).view(1, 1, 1, 3)).flatten()
    means = {"imagenet": IMAGENET, "places": PLACES}
    expected = rgb / 255 if scheme == "simple" else rgb[::-1] - np.array(means[scheme])
    if scheme == "imagenet" and protocol == "as_published":
        expected = expected / 255
        assert abs(expected).max() < 0.5
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_sigmoid_on_features_that_nobody_scaled_cannot_reach_them(protocol, tmp_path):
    data = drawn()
    module, trainer, folder = prepared(config_of("table3_512", protocol, max_epochs=20), data, tmp_path)
    training.fit(trainer, module, data, folder)
    raw = data.training_split().rows
    assert (raw > 1).float().mean() > 0.3
    with torch.no_grad():
        scaled = module.scaling(raw)
        rebuilt = module.rebuild(scaled)[1]
    if protocol == "as_published":
        assert torch.equal(scaled, raw)
        assert rebuilt.min() >= 0
        assert rebuilt.max() <= 1
    else:
        expected = (raw.double() - raw.double().mean(0)) / raw.double().std(0, correction=0)
        torch.testing.assert_close(scaled.double(), expected, atol=1e-4, rtol=1e-4)
        assert rebuilt.min() < 0
        assert rebuilt.max() > 1


def inputs_by_row(name: str, protocol: str, path: Path) -> tuple[dict[str, dict[bytes, list[np.ndarray]]], int]:
    """What the head was given for each clean row in two epochs, for train and val, and how often noise was drawn."""
    data, draws = drawn(), 0
    module, trainer, folder = prepared(config_of(name, protocol, max_epochs=2), data, path)
    given: dict[str, dict[bytes, list[np.ndarray]]] = {"train": {}, "val": {}}
    objective: Callable = module.objective

    def seen(noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        for before, after in zip(clean.numpy(), noisy.numpy(), strict=True):
            given["train" if module.training else "val"].setdefault(before.tobytes(), []).append(after)
        return objective(noisy, clean)

    def drawn_again(*_: Any) -> None:
        nonlocal draws
        draws += 1

    module.objective = seen
    module.noise.register_forward_hook(drawn_again)
    training.fit(trainer, module, data, folder)
    assert (len(given["train"]), len(given["val"])) == (90, 30)
    assert all(len(after) == 2 for rows in given.values() for after in rows.values())
    return given, draws


def test_published_noise_is_clipped_and_drawn_once_for_training_and_validation(tmp_path):
    given, draws = inputs_by_row("table5_vgg16_places", "as_published", tmp_path)
    assert draws == 2
    for rows in given.values():
        for clean, (first, second) in rows.items():
            assert (first == second).all()
            assert first.min() >= 0
            assert first.max() <= 1
            assert (first != np.frombuffer(clean, np.float32).clip(0, 1)).any()


def test_mended_noise_is_fresh_unclipped_and_not_for_validation(tmp_path):
    given, draws = inputs_by_row("table5_vgg16_places", "mended", tmp_path)
    assert draws == 6  # 90 rows in batches of 32, twice
    for clean, (first, second) in given["train"].items():
        assert (first != second).any()
        assert min(first.min(), second.min()) < 0
        assert max(first.max(), second.max()) > 1
        assert np.std(first - np.frombuffer(clean, np.float32)) == pytest.approx(0.3, rel=0.4)
    for clean, epochs in given["val"].items():
        assert all((after == np.frombuffer(clean, np.float32)).all() for after in epochs)


class Spoiled(pl.Callback):
    """Moves the reconstruction further away before every epoch but the first, and remembers what was validated."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        with torch.no_grad():
            module.head.decoder[-1].bias -= 10.0 * trainer.current_epoch

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in module.state_dict().items()})
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.parametrize(("protocol", "scored"), [("as_published", -1), ("mended", 0)])
def test_ten_epochs_of_patience_and_the_last_weights_or_the_best(protocol, scored, tmp_path):
    data = drawn()
    module, trainer, folder = prepared(config_of("table3_2048", protocol), data, tmp_path)
    spoiled = Spoiled()
    trainer.callbacks.insert(0, spoiled)
    training.fit(trainer, module, data, folder)
    assert len(spoiled.losses) == trainer.current_epoch == 11
    assert min(spoiled.losses) == spoiled.losses[0] < spoiled.losses[-1]
    saved = training.checkpoint.open_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]
    other = spoiled.states[0 if scored else -1]
    for part, value in module.state_dict().items():
        assert torch.equal(value, spoiled.states[scored][part]), part
        assert torch.equal(saved[part], value), part
    assert not torch.equal(other["head.decoder.1.bias"], saved["head.decoder.1.bias"])


@pytest.mark.parametrize(
    ("angles", "right", "hit_at_5", "top5"),
    [
        ([1, 10, 11, 12, 13, 14, 15], 0, 1, 0),  # the nearest alone
        ([1, 10, 11, 12, 13, 14, 15], 1, 1, 1),  # the second
        ([1, 10, 11, 12, 13, 14, 15], 4, 1, 1),  # the fifth
        ([1, 10, 11, 12, 13, 14, 15], 5, 0, 1),  # the sixth
        ([1, 10, 11, 12, 13, 14, 15], 6, 0, 0),  # the seventh
    ],
)
def test_the_published_top_5_are_ranks_2_to_6(angles, right, hit_at_5, top5):
    turned = torch.tensor([0.0, *angles]).deg2rad()
    labels = torch.ones(8, dtype=torch.int64)
    labels[[0, 1 + right]] = 0
    found = score(torch.stack([turned.cos(), turned.sin()], 1), labels, torch.arange(8), is_query=torch.arange(8) == 0)
    assert float(found.hit(5)) == hit_at_5
    assert found.values()["published_top5"] == top5


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", FITTED)
def test_the_optimizer_and_the_limits_are_those_of_keras(name, protocol):
    config = composed(name, f"protocol={protocol}")
    optimizer = building.build(config["optimizer"])([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.Adadelta
    assert (optimizer.defaults["lr"], optimizer.defaults["rho"], optimizer.defaults["weight_decay"]) == (1.0, 0.95, 0.0)
    assert config["scheduler"] is None
    assert config["loss"]["_target_"] == "torch.nn.MSELoss"
    assert config["batch_size"] == (64 if name.startswith("table6_flatten") else 128)
    assert config["trainer"]["max_epochs"] == 2000
    assert config["callbacks"]["early_stopping"]["patience"] == 10
    assert config["callbacks"]["early_stopping"]["monitor"] == "val/loss"
    head, odd = config["architecture"], name == "extra_fc1_deeper_softmax"
    assert head["activation"] == "relu"
    assert head["code_activation"] == ("elu" if odd else "relu")
    outputs = {"as_published": "softmax" if odd else "sigmoid", "mended": "identity"}
    assert head["output_activation"] == outputs[protocol]
    assert not head["tied"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_extra_row_has_an_elu_code_and_published_a_softmax_output(protocol):
    rows = drawn().training_split().rows
    module = modules.build_head(config_of("extra_fc1_deeper_softmax", protocol), (WIDTH,))
    module.scaling.fit(lambda: [rows])
    with torch.no_grad():
        module.head.encoder[-1].weight *= 100
        code, rebuilt = module.rebuild(module.scaling(rows))
    assert -1 <= code.min() < -0.9  # ELU's floor; ReLU's is 0
    assert code.max() > 1
    sums = rebuilt.sum(1)
    assert torch.allclose(sums, torch.ones(90)) == (protocol == "as_published")
    assert bool((rebuilt < 0).any()) == (protocol == "mended")


def test_a_code_after_relu_is_never_negative():
    rows = drawn().training_split().rows
    for protocol in PROTOCOLS:
        module = modules.build_head(config_of("table3_512", protocol), (WIDTH,))
        module.scaling.fit(lambda: [rows])
        with torch.no_grad():
            code = module.encode(rows)
        assert code.min() == 0
        assert code.max() > 0
