"""A task in the place of train.py that takes no time: it ends as it is told to, and writes down that it ran.

``python small_app.py PLACE`` makes its config for the folder that it is then started in.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config.checking import checked
from likeness.errors import LikenessError
from likeness.runs.launch import reported, run

CONFIG = """
defaults: [hydra_defaults, _self_, {launcher: local}, {sweeper: grid}]
end: well
value: 1
seed: 0
debug: false
paths: {outputs: outputs}
sweep: {name: unnamed, dry_run: false, wait: true, at_once: 2}
hydra: {searchpath: ["file://CONF"], job: {name: small_app}}
"""


def make(place: Path) -> None:
    """The app and its config, in a folder of their own, with the launchers and sweepers of this project."""
    (place / "app.yaml").write_text(CONFIG.replace("CONF", str(Path(__file__).parents[1] / "conf")))
    (place / "app.py").write_text(Path(__file__).read_text())


@hydra.main(version_base="1.3", config_path=".", config_name="app")
@reported
def task(cfg: DictConfig) -> float:
    checked(cfg)
    with open("ran.txt", "a") as file:
        file.write(f"{cfg.end}{cfg.value} {os.environ.get('OMP_NUM_THREADS')}\n")
    mended = Path("mended")
    if cfg.end == "bad" and not mended.exists():
        raise LikenessError("IMG-BAD", "broken picture.", where="a.jpg", fix="remove it")
    if cfg.end == "killed" and not mended.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while cfg.end == "waiting" and not mended.exists():
        time.sleep(0.05)
    results = {"splits": {"val": {"head": {"hit@1": {"value": cfg.value / 10}}}}}
    (Path(HydraConfig.get().runtime.output_dir) / "metrics.json").write_text(json.dumps(results))
    return cfg.value / 10


if __name__ == "__main__":
    make(Path(sys.argv[1])) if Path(__file__).name == "small_app.py" else run(task)
