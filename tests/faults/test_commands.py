"""Wrong commands, as a newcomer may type them: each ends with the right exit code and a message that helps."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import small_run
from faults.sandbox import command
from helpers import ROOT, draw_striped

from likeness.assembly import baselines, extracting, training


class Wrong(NamedTuple):
    """A command, the exit code that it ends with, and what its message says.

    Args:
        library: Only a class of torch's or Lightning's knows what is wrong.
    """

    words: str
    code: int
    told: tuple[str, ...]
    library: bool = False


QUICK = "backbone=random preprocessing=simple preprocessing.size=32 architecture=dense trainer.max_epochs=1 logger=none"
PHOTOS = f"{QUICK} data=folder data.root=photos"
TRAIN = [
    Wrong("batch_size=abc", 78, ("batch_size", "'abc'", "Integer")),
    Wrong("data.bath_size=3", 78, ("data.bath_size",)),
    Wrong("batchsize=3", 78, ("Did you mean batch_size?",)),
    Wrong("optimizer.lr=-1", 78, ("optimizer.lr: -1 is less than 0",)),
    Wrong("optimizer.lr=abc", 78, ("optimizer.lr: 'abc' is not float",), library=True),
    Wrong("noise=gausian", 78, ("noise/gausian", "Did you mean noise=gaussian?")),
    Wrong("architecture=dens", 78, ("architecture/dens", "dense")),
    Wrong("data=folder", 78, ("data.root: missing, give it with data.root=",)),
    Wrong("data=folder data.root=nowhere", 66, ("[DATA-MISSING]", "{place}/nowhere")),
    Wrong("data=folder data.root=empty", 65, ("[DATA-LAYOUT]", "{place}/empty")),
    Wrong("data=folder data.root=text.txt", 66, ("[DATA-MISSING]", "text.txt")),
    Wrong("data=manifest data.manifest=no.csv", 66, ("[DATA-MISSING]", "no.csv")),
    Wrong("data=manifest data.manifest=text.txt", 65, ("[DATA-MANIFEST]", "text.txt")),
    Wrong("experiment=thesis/table9", 78, ("experiment/thesis/table9", "Did you mean experiment=thesis/table")),
    Wrong("trainer.accelerator=gpu", 78, ("finds no GPU", "trainer.accelerator=cpu"), library=True),
    Wrong("trainer.accelerator=gpus", 78, ("Trainer cannot be made", "gpus"), library=True),
    Wrong(f"{PHOTOS} extraction.device=cuda", 78, ("extraction.device", "extraction.device=cpu")),
    Wrong(f"{PHOTOS} extraction.device=cudda", 78, ("extraction.device", "cudda")),
    Wrong("hydra.run.dir=text.txt/run", 73, ("[RUN-DIR]", "text.txt/run", "hydra.run.dir=")),
    Wrong("hydra.run.dir=/proc/run", 73, ("[RUN-DIR]", "/proc/run")),
    Wrong(f"{PHOTOS} paths.store=text.txt/store", 74, ("text.txt/store", "paths.store=")),
    Wrong("backbone=resnet51", 78, ("backbone/resnet51", "resnet50")),
    Wrong(f"{PHOTOS} backbone.name=shufflenet_v2_x0_6", 78, ("[BACKBONE]", "Did you mean shufflenet_v2_x0_5")),
    Wrong(f"{PHOTOS} backbone.layer=convv5", 78, ("[BACKBONE]", "Did you mean conv5")),
    Wrong(f"{PHOTOS} backbone.weights=no.pth", 66, ("[WEIGHTS-MISSING]", "no.pth")),
    Wrong(f"{PHOTOS} backbone.weights=defautl", 66, ("[WEIGHTS-MISSING]", "Did you mean default?")),
    Wrong(f"{PHOTOS} backbone.weights=text.txt", 65, ("[WEIGHTS-FORMAT]", "text.txt")),
    Wrong(f"{PHOTOS} preprocessing.size=0", 78, ("size: at least 1, not 0",)),
    Wrong("trainer.max_epochs=1.5", 78, ("trainer.max_epochs: 1.5 is not Optional[int]",), library=True),
    Wrong("trainer.max_epochs=-7", 78, ("max_epochs", "-7"), library=True),
    Wrong("seeds=0", 78, ("seeds: 0 is less than 1",)),
    Wrong("metric.ks=[5]", 78, ("metric.ks",)),
    Wrong(f"{PHOTOS} metric.ks=[1,100]", 78, ("metric.ks asks for 100 neighbours", "metric.ks='[1, ")),
    Wrong("scheduler=cosin", 78, ("scheduler/cosin", "cosine")),
    Wrong("data.root=a(b", 78, ("Quote",)),
    Wrong("callbacks.best.monitor=val/los", 78, ("callbacks.best.monitor: 'val/los' is not one of",)),
    Wrong("figures.split=tets", 78, ("figures.split: 'tets' is not one of",)),
    Wrong("+foo=1", 78, ("foo: unknown",)),
    Wrong("logger=wand", 78, ("logger/wand", "wandb")),
    Wrong("data=folder data.root=photos data.fractions=[1,2,3]", 78, ("fractions",), library=True),
    Wrong(f"{PHOTOS} architecture.widths=[]", 78, ("[HEAD]", "architecture.widths")),
    Wrong(f"{PHOTOS} noise=masking noise.share=2.0", 78, ("noise.share=2.0 is no share",)),
    Wrong("loss=l1", 78, ("loss/l1", "huber")),
    Wrong("resnet50", 78, ("name=value", "backbone=resnet50?")),
    Wrong("--epochs 3", 2, ("unrecognized arguments",)),
    Wrong("seed=${nope}", 78, ("nope", "where : seed")),
    Wrong("seed=${nope:1}", 78, ("nope", "where : seed")),
]
EVALUATE = [
    Wrong("", 78, ("give run=FOLDER or checkpoint=FILE",)),
    Wrong("run=a checkpoint=b", 78, ("not both",)),
    Wrong("run=nowhere", 66, ("[RUN-MISSING]", "{place}/nowhere")),
    Wrong("run=empty", 66, ("[RUN-MISSING]", "no finished run")),
    Wrong("checkpoint=nowhere.ckpt", 66, ("[CKPT-MISSING]", "{place}/nowhere.ckpt")),
    Wrong("checkpoint=text.txt", 74, ("[CKPT]", "another kind of file")),
    Wrong("checkpoint=photos", 66, ("[CKPT-MISSING]", "the file of a checkpoint")),
    Wrong("run=run split=tets", 78, ("split: 'tets' is not one of",)),
    Wrong("run=run gallery=tets", 78, ("gallery: 'tets' is not one of",)),
    Wrong("run=run architecture=dense", 78, ("architecture",)),
    Wrong("run=run data.root=nowhere", 66, ("[DATA-MISSING]", "{place}/nowhere")),
    Wrong("run=run", 66, ("[DATA-MISSING]", "/none")),
    Wrong("run=run backbone.weights=bundled", 65, ("[CKPT-EXTRACTOR]", "backbone.weights")),
    Wrong("run=run data.root=photos metric.ks=[1,100]", 78, ("metric.ks asks for 100",)),
    Wrong("run=run data.root=photos gallery=unlabelled", 65, ("[DATA-SPLIT]", "unlabelled")),
    Wrong("checkpoint=run/checkpoints/baselines.ckpt", 65, ("[CKPT-SCHEMA]", "best.ckpt")),
]
LIKENESS = [
    Wrong("", 2, ("usage: likeness",)),
    Wrong("extrac", 2, ("invalid choice: 'extrac'",)),
    Wrong("extract shard=4/4", 78, ("shard", "i/n")),
    Wrong("extract data.rot=x", 78, ("data.rot", "Did you mean data.root?")),
    Wrong("project", 78, ("run: missing",)),
    Wrong("project run=nowhere", 66, ("[RUN-MISSING]",)),
    Wrong("project run=run perplexity=abc", 78, ("perplexity: 'abc' is no number",)),
    Wrong("project run=run split=tets", 78, ("split: 'tets' is not one of",)),
    Wrong("project rn=run", 78, ("did you mean run?",)),
    Wrong("report nowhere", 66, ("[RUN-MISSING]", "nowhere")),
    Wrong("sweep status nowhere", 66, ("[RUN-MISSING]", "nowhere")),
    Wrong("sweep rm photos", 66, ("[RUN-MISSING]", "photos")),
    Wrong("weights convert no.h5", 66, ("[WEIGHTS-MISSING]", "no.h5")),
    Wrong("weights convert text.txt", 65, ("[WEIGHTS-FORMAT]", "text.txt")),
    Wrong("sync nowhere", 66, ("[RUN-MISSING]", "nowhere")),
]
EACH = [
    *(("train.py", w) for w in TRAIN),
    *(("evaluate.py", w) for w in EVALUATE),
    *(("likeness", w) for w in LIKENESS),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures, a run on none of them, an empty folder and a text."""
    place = tmp_path_factory.mktemp("newcomer")
    for period, name in ((4, "fine"), (25, "coarse")):
        for number, split in enumerate(["train"] * 4 + ["val"] * 4 + ["test"] * 4):
            draw_striped(place / "photos" / split / name / f"{number}.png", period, number)
    (place / "empty").mkdir()
    (place / "text.txt").write_text("hello")
    config = small_run.config_of(*QUICK.split(), "callbacks=last_weights")
    extractor = extracting.build_extractor(config)
    data = small_run.drawn(width=extractor.backbone.feature_shape(32)[0])
    head, _, _ = small_run.train(config, place / "run", small_run.RaisedAt(), data, extractor)
    baselines.fit_methods(head, data, 0, training.RunFolder(place / "run", config))
    return place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A third of them in every run of the tests, all in those of faults."""
    if "wrong" in metafunc.fixturenames:
        chosen = EACH[:: 3 if metafunc.config.getoption("--size", "quick") == "quick" else 1]
        names = [f"{script} {wrong.words.removeprefix(PHOTOS)}" for script, wrong in chosen]
        metafunc.parametrize(("script", "wrong"), chosen, ids=names)


@pytest.mark.fault("F47")
def test_a_wrong_command_says_what_is_wrong(script, wrong, place, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    before = {path for path in place.glob("*") if not path.name.startswith(".")}
    done = command(script, *wrong.words.split(), folder=place)
    assert done.code == wrong.code, done.err
    for text in wrong.told:
        assert text.format(place=place) in done.err
    assert "Traceback" not in done.err
    assert "weights_only" not in done.err
    assert {path for path in place.glob("*") if not path.name.startswith(".")} - before <= {place / "outputs"}


def seconds_to(code: int, *words: str, place: Path) -> float:
    """Of a new process, as the command is typed."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return time.monotonic() - started


@pytest.mark.fault("F47")
def test_the_first_error_comes_soon(place, figure, count):
    """Only what a class of a library knows, such as a wrong type, has to wait for torch."""
    script = str(ROOT / "train.py")
    early = [w for w in TRAIN if w.code in (2, 78) and not w.library and QUICK not in w.words]
    chosen = early[:: count(len(early) // 4, 1, 1)]
    seconds = [seconds_to(wrong.code, script, *wrong.words.split(), place=place) for wrong in chosen]
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    figure("G18", "p95 of the seconds to a first error in the options", "< 3", f"{p95:.1f}", met=True)
    if count(0, 1, 1):
        imports = seconds_to(0, "-c", "import torch, torchvision, pytorch_lightning", place=place)
        beyond = seconds_to(78, script, "optimizer.lr=abc", place=place) - imports
        figure("G18", "the same, of a wrong type, beyond the imports of torch", "< 3", f"{beyond:.1f}", met=True)


@pytest.mark.fault("F47")
def test_there_are_enough_wrong_commands(figure):
    figure("G18", "wrong commands with the right exit code and text", len(EACH), len({str(each) for each in EACH}))
