"""From words of a command line to a config: the typed roots made known to Hydra, and its composition."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from likeness.config.checkout import checkout
from likeness.config.guard import guarded
from likeness.config.schema import Evaluate, Train
from likeness.errors import LikenessError


def register() -> None:
    """Make the typed roots known to Hydra, for ``conf/train.yaml`` and ``conf/evaluate.yaml`` to build on."""
    # There is one, and it copies what it gives out; Hydra copies all of it for each job, and 173 times for --help.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    store.store(name="train_schema", node=Train)
    store.store(name="evaluate_schema", node=Evaluate)
    if not hasattr(ConfigLoaderImpl.load_configuration, "__wrapped__"):
        ConfigLoaderImpl.load_configuration = guarded(ConfigLoaderImpl.load_configuration)  # type: ignore[method-assign]


def composed(words: Sequence[str]) -> DictConfig:
    """What ``train.py`` would be told by these words of its command line, without its run: so without trackers.

    Raises:
        LikenessError: CONFIG where the package was installed without the checkout's ``conf``.
    """
    folder = checkout() / "conf"
    if not (folder / "train.yaml").is_file():
        raise LikenessError(
            "CONFIG",
            "the options of train.py are not beside this package.",
            where=str(folder),
            fix="Install likeness from its checkout with pip install -e .",
        )
    register()
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("train", list(words))
    cfg.logger = {}
    return cfg
