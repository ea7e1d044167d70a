"""From a checkpoint back to the head, its extractor and its config: nothing in it is believed unchecked."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness.archive import printable
from likeness.assembly.building import Config, build
from likeness.assembly.extracting import build_extractor
from likeness.config.checking import scoring_faults
from likeness.config.nodes import faults
from likeness.config.refusals import refuse
from likeness.config.targets import restored
from likeness.errors import LikenessError, listed
from likeness.features.extraction import Extractor
from likeness.features.store import shelf_folder
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.noise import NoNoise
from likeness.images.demo import DrawnRooms
from likeness.runs import checkpoint
from likeness.runs.sweep import read_status

log = logging.getLogger(__name__)

_FOLDER = "likeness.images.folder.ImageFolder"
_CARD = {"architecture", "scaling", "decoding", "preprocessing", "backbone", "data", "metric", "store", "fingerprint"}
_CARD |= {"extractor", "feature_shape", "seed", "options"}
_WORDS = ("CONFIG", "CONFIG-TARGET", "HEAD")  # refusals of what a file says, not of what is here
_OF_OWN_WEIGHTS = ("BACKBONE", "WEIGHTS-SHAPE")
_DEEPEST_HEAD = 1000  # layers
_DEFAULT_STORE = "outputs/features"


def checkpoint_path(config: Config) -> Path:
    """The checkpoint that ``run=`` or ``checkpoint=`` names.

    Raises:
        LikenessError: CONFIG when both or neither is given, RUN-MISSING when the run's folder has none.
    """
    if (config["run"] is None) == (config["checkpoint"] is None):
        raise LikenessError(
            "CONFIG",
            "give run=FOLDER or checkpoint=FILE" + (", not both." if config["run"] else "."),
            where="run, checkpoint",
            fix="python evaluate.py run=outputs/train/NAME",
        )
    if config["checkpoint"] is not None:
        return Path(config["checkpoint"])
    path = Path(config["run"]) / "checkpoints" / "best.ckpt"
    if path.exists() and (state := read_status(path.parents[1]).get("state", "unknown")) != "done":
        log.warning("[RUN-MISSING] this run is %s, not done: its checkpoint is not its last word", state)
    if not path.exists():
        raise LikenessError(
            "RUN-MISSING",
            f"there is no finished run in {config['run']}.",
            where=str(path.absolute()),
            fix="Give the folder that train.py printed, or the file of a checkpoint.",
        )
    return path


def as_trained(config: Config, card: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation's config with everything that was not given taken from training.

    Where ``data.root`` names another folder than in training, all its pictures are scored unless ``split`` says less.
    """
    given = {name: value for name, value in config["data"].items() if value is not None}
    elsewhere = bool({"_target_", "root"} & given.keys())
    data = given if "_target_" in given else _data_node(given, card)
    refuse(list(faults(data, "data")))
    splits = [config["split"]] if config["split"] else ["all"] if elsewhere else ["val", "test"]
    metric = {**card["metric"], **{name: value for name, value in config["metric"].items() if value is not None}}
    if "_target_" not in given:
        _refuse_drawing(data)
    paths = {**config["paths"], "store": store_of(card, config["paths"]["store"])}
    changed = {"data": data, "splits": splits, "metric": metric, "paths": paths}
    return {**config, **changed, "batch_size": 1, "seed": card["seed"]}


def store_of(card: Mapping[str, Any], given: str | None) -> str:
    """The store of features that is given, else the one of training where it is here, else that of ``train.py``."""
    kept = shelf_folder(Path(card["store"]), card["fingerprint"]).is_dir()  # or a file would say where we write
    return given or (card["store"] if kept else _DEFAULT_STORE)


def _refuse_drawing(data: Config) -> None:
    """Rooms that a checkpoint speaks of are read; what and where it says to draw is not done on its word."""
    rooms = build(data)
    if isinstance(rooms, DrawnRooms) and not rooms.folder.is_dir():
        raise LikenessError(
            "DATA-MISSING",
            "the drawn rooms that this head was trained on are not here.",
            where=str(rooms.folder.absolute()),
            kept="Nothing was drawn or scored.",
            fix="Draw them again with data=demo, or score other pictures with data.root=.",
        )


def _data_node(given: Config, card: Mapping[str, Any]) -> dict[str, Any]:
    """The data of training with what was given in its place. Another folder has its own names, so its own homes."""
    trained = restored("images", card["data"])
    if "root" not in given or str(Path(given["root"]).absolute()) == trained.get("root"):
        return {**trained, **given}
    kept = trained if trained["_target_"] == _FOLDER else {"_target_": _FOLDER}
    return {**kept, "home_pattern": None, **given}


def restore(path: Path, overrides: Config) -> tuple[Autoencoder, Extractor, dict[str, Any]]:
    """A head from its checkpoint, its extractor built anew, and the card. An exported model brings its own weights.

    Args:
        overrides: ``backbone.weights`` names another place of the weights; ``extraction.device``.

    Raises:
        LikenessError: CKPT-EXTRACTOR when what is built here is not what the head was trained on; CKPT-* from opening.
    """
    content = checkpoint.open_checkpoint(path)
    card = content[checkpoint.CARD]
    if lacking := sorted(_CARD - card.keys()):
        raise LikenessError(
            "CKPT-SCHEMA",
            f"{path.name} describes no head: its card lacks {', '.join(lacking)}.",
            where=str(path.absolute()),
            fix="Give checkpoints/best.ckpt as train.py wrote it.",
        )
    if seeds := card.get("seeds"):
        raise LikenessError(
            "CKPT-SCHEMA",
            f"{path.name} is the training state of {len(seeds)} heads, and no head to score.",
            where=str(path.absolute()),
            fix=f"Give one head's file beside it: seed-{seeds[0]}.ckpt to seed-{seeds[-1]}.ckpt, written when all end.",
        )
    state, shape = content.get("state_dict"), tuple(card["feature_shape"])
    if state is None or (layers := _most_layers(card["architecture"])) > _DEEPEST_HEAD:
        raise checkpoint.not_as_written(path, ["state_dict" if state is None else f"{layers} layers"])
    own_weights = content.get("backbone")
    if own_weights is not None and overrides["backbone"].get("weights"):
        refuse([f"backbone.weights: {path.name} has its own"])
    checkpoint.refuse_non_finite(path, own_weights or {})
    with _described_in(path, _WORDS if own_weights is None else (*_WORDS, *_OF_OWN_WEIGHTS)):
        config = _config_of(card, overrides, path)
        module = loaded(lambda: _scored_module(config, shape, card), state, path)
        extractor = build_extractor(config, own_weights)
    if extractor.fingerprint != card["fingerprint"]:
        raise _other_extractor(path, card["extractor"], extractor.identity())
    return module.eval(), extractor, card


def _most_layers(architecture: Mapping[str, Any]) -> int:
    return max((len(value) for value in architecture.values() if isinstance(value, list)), default=0)


def _config_of(card: Mapping[str, Any], overrides: Config, path: Path) -> dict[str, Any]:
    """The checked nodes that a card describes, with what was given in their place."""
    rooms = {"architecture": "heads", "scaling": "heads", "decoding": "images", "preprocessing": "images"}
    nodes = {name: restored(room, card[name], str(path)) for name, room in rooms.items()}
    backbone = restored("features", card["backbone"], str(path))
    backbone["weights"] = overrides["backbone"].get("weights") or backbone["weights"]
    config = {**nodes, "backbone": backbone, "extraction": overrides["extraction"]}
    refuse([*faults(config), *scoring_faults(card["metric"])])
    return config


def _scored_module(config: Config, shape: tuple[int, ...], card: dict[str, Any]) -> Autoencoder:
    head, scaling = (build(config[name], feature_shape=shape) for name in ("architecture", "scaling"))
    return Autoencoder(head, scaling, NoNoise(), torch.nn.MSELoss(), torch.optim.SGD, card=card)


@contextmanager
def _described_in(path: Path, codes: Sequence[str]) -> Iterator[None]:
    """What a config may not say, a checkpoint may not describe either; the refusal says whose words they are."""
    try:
        yield
    except LikenessError as error:
        if error.code not in codes:
            raise
        raise checkpoint.not_as_written(
            path, error.where.splitlines(), f"{error.what} {error.cause}".strip()
        ) from error


def loaded(make: Callable[[], Any], state: Mapping[str, Tensor], path: Path) -> Any:
    """What ``make`` builds, with these weights; it is built without memory first, and they must fit and be finite."""
    with torch.device("meta"):
        bare = make()
    wanted = bare.state_dict()
    other = [name for name in wanted.keys() & state.keys() if _is_float(wanted[name]) != _is_float(state[name])]
    if other:
        raise checkpoint.not_as_written(path, other)
    try:
        bare.load_state_dict({name: value.to("meta") for name, value in state.items()})
    except RuntimeError as error:
        raise LikenessError(
            "CKPT-SCHEMA",
            "the checkpoint's weights do not fit the head that it describes.",
            where=str(path.absolute()),
            cause="\n".join(printable(line) for line in str(error).splitlines()[1:4]),
            kept="Nothing was built from it; the file is as it was.",
            fix="Give a checkpoint as train.py wrote it.",
        ) from error
    checkpoint.refuse_non_finite(path, state)
    with torch.random.fork_rng():
        module = make()
    module.load_state_dict(state)
    return module


def _is_float(value: Tensor) -> bool:
    return value.is_floating_point()


def _other_extractor(path: Path, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> LikenessError:
    changed = [
        printable(f"{part}.{name}: trained with {values.get(name)!r}, here {here.get(name)!r}", 200)
        for part, values in wanted.items()
        if isinstance(values, Mapping)
        for here in [got.get(part, {})]
        for name in {**values, **here}
        if here.get(name) != values.get(name)
    ]
    return LikenessError(
        "CKPT-EXTRACTOR",
        "the features that this head was trained on cannot be made here.",
        where=f"{path}\n" + listed(changed),
        kept="Nothing was scored.",
        fix="Give the same weights with backbone.weights=FILE, or the version of likeness that trained the head.",
    )
