"""The store filled on many devices: ``likeness extract``."""

from collections.abc import Iterator
from pathlib import Path

from pytorch_lightning.plugins.environments import SLURMEnvironment

from likeness.assembly.building import Config, build
from likeness.assembly.extracting import build_extractor, pace_of
from likeness.assembly.training import lightning_trainer
from likeness.config.refusals import refuse
from likeness.errors import LikenessError
from likeness.features.prediction import Filled, fill
from likeness.features.store import Share
from likeness.runs import processes

_OF_PROCESSES = ("_target_", "accelerator", "devices", "num_nodes", "strategy")  # of a trainer that only predicts


def fill_store(config: Config, number: int, of: int) -> tuple[Filled, Path] | None:
    """``likeness extract``: compute what the store lacks of share ``number`` of ``of``, and where that is.

    Of the trainer's options those of its processes count; features are float32 whatever its precision. None in all
    processes but the first.

    Raises:
        LikenessError: CONFIG, and what ``extract`` raises.
    """
    refuse(list(_fill_faults(config)))
    trainer = lightning_trainer({name: config["trainer"][name] for name in _OF_PROCESSES if name in config["trainer"]})
    _refuse_other_tasks(trainer.num_devices * trainer.num_nodes)
    extractor = build_extractor({**config, "extraction": {"device": "cpu"}})  # Lightning moves it
    data, store = build(config["data"]), Path(config["paths"]["store"])
    pace = pace_of(config, trainer.strategy.root_device.type, trainer.num_devices)
    with processes.told_apart():
        filled = fill(
            trainer,
            extractor,
            data.table(),
            store,
            share=Share(number, of),
            on_bad_image=data.on_bad_image,
            rehash=config["extraction"]["rehash"],
            **pace,
        )
    return (filled, store) if trainer.is_global_zero else None


def _fill_faults(config: Config) -> Iterator[str]:
    if (device := config["extraction"]["device"]) != "auto":
        yield f"extraction.device: {device!r} is not followed here: give trainer.accelerator and trainer.devices"
    if (strategy := config["trainer"].get("strategy", "auto")) not in ("auto", "ddp"):
        yield f"trainer.strategy: {strategy!r} is not one of auto, ddp: each process looks with a whole network"


def _refuse_other_tasks(processes: int) -> None:
    """Within a job of Slurm its tasks are the processes, and nobody starts others."""
    if processes > 1 and SLURMEnvironment.detect() and (tasks := SLURMEnvironment().world_size()) != processes:
        raise LikenessError(
            "CONFIG",
            f"trainer.devices on trainer.num_nodes make {processes} processes; this job of Slurm has {tasks}.",
            where="SLURM_NTASKS",
            kept="Nothing was opened or computed yet.",
            fix="Give the job a task a device (--ntasks-per-node=) and start this command with srun.",
        )
