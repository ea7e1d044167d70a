"""A step that is recorded and replayed learns what the step itself does; a recorder that only calls shows it."""

import signal
from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from small_run import config_of, drawn, train
from torch import nn

from likeness.assembly import modules, training
from likeness.errors import LikenessError
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.conv import Conv
from likeness.heads.noise import Gaussian
from likeness.heads.recording import CudaRecorder, Recorded
from likeness.heads.scaling import Scaling
from likeness.runs import preemption
from likeness.runs.checkpoint import newest_checkpoint, open_checkpoint

BATCHES, EPOCHS = 7, 4  # 40 rows in batches of 6, and one of 4


class CallingRecorder:
    """Replays by calling. As a graph would, it keeps to the parameters and rates of when it recorded."""

    counts: tuple[list[int], list[int]] = ([], [])  # rows of the steps that were recorded, and of those replayed

    def warm(self, take):
        return take()

    def record(self, take):
        (optimizer,) = take.func.__self__.trainer.optimizers
        rows, fixed, result = take.args[0].shape[-2], held(optimizer), torch.empty(0)
        self.counts[0].append(rows)

        def replay():
            assert all(map(same, held(optimizer), fixed)), "a graph would go on with those of then"
            self.counts[1].append(rows)
            return torch.add(take(), 0, out=result)  # always the same tensor

        return replay


def held(optimizer) -> list:
    return [held for group in optimizer.param_groups for held in (group["lr"], *group["params"])]


def same(one, other) -> bool:
    return one is other or (isinstance(one, float) and one == other)


@pytest.fixture
def recorder(monkeypatch):
    """What ``cuda_graph=true`` records with, where there is no CUDA; its counts start at nothing."""
    monkeypatch.setattr(modules, "CudaRecorder", CallingRecorder)
    monkeypatch.setattr(training, "_refuse_unrecorded", lambda trainer: None)
    monkeypatch.setattr(CallingRecorder, "counts", ([], []))
    return CallingRecorder


class Nothing(pl.Callback):
    """Asks nothing, so that an epoch is one step."""


def small():
    data = drawn()
    data.batch_size = 6
    return data


def config_for(*variant: str) -> dict:
    return config_of(f"trainer.max_epochs={EPOCHS}", *variant)


def ends(config, path, watcher=None) -> tuple[dict, list, pl.Trainer]:
    """What the last checkpoint holds of weights, optimizer and losses, every epoch's values, and the trainer."""
    module, trainer, history = train(config, path, watcher or Nothing(), small())
    content = open_checkpoint(newest_checkpoint(path / "checkpoints"))
    names = ("state_dict", "optimizer_states", "lr_schedulers", "likeness_progress", "epoch", "global_step")
    return {"scored": dict(module.state_dict())} | {name: content[name] for name in names}, history, trainer


def assert_same(one, other, at=""):
    """Bit for bit, through all nesting."""
    assert type(one) is type(other), at
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one:
            assert_same(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{at}[{index}]")
    else:
        assert one == other, at


# Of three seeds the second gains less than this in the second epoch: it leaves, and the others go on.
LEAVES = ("callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=0.0165")
VARIANTS = {
    "rates that stay": (["optimizer=adadelta", "noise=masking", "scaling=standardize"], [6, 4]),
    "no noise": (["optimizer=sgd", "noise=none"], [6, 4]),
    "noise drawn once": (["optimizer=adamw", "noise=gaussian_as_published", "scaling=max_abs"], [6, 4]),
    "a rate that falls with each epoch": (["optimizer=adamw", "noise=gaussian", "scheduler=cosine"], [6, 6, 6, 6]),
    "clipped": (["optimizer=sgd", "optimizer.lr=1", "trainer.gradient_clip_val=0.05"], [6, 4]),
    "bf16": (["optimizer=adamw", "noise=gaussian", "trainer.precision=bf16-mixed"], [6, 4]),
    "seeds": (["seeds=3", "optimizer=adamw", "noise=gaussian", "architecture.l1=0.01"], [6, 4]),
}


@pytest.mark.parametrize(("variant", "recorded"), VARIANTS.values(), ids=VARIANTS)
def test_a_recorded_step_learns_what_a_step_does_bit_for_bit(variant, recorded, tmp_path, recorder):
    """Three steps of a shape are taken as they are: the fourth batch of 6 rows is recorded, and that of 4 rows."""
    config = config_for(*variant)
    expected, history, _ = ends(config, tmp_path / "taken")
    assert recorder.counts == ([], [])
    found, told, trainer = ends({**config, "cuda_graph": True}, tmp_path / "recorded")
    assert trainer.train_dataloader.undivided
    assert_same(found, expected)
    assert told == history
    steps, fresh = EPOCHS * (BATCHES - 1), recorded.count(6)
    assert recorder.counts[0] == recorded
    assert recorder.counts[1].count(6) == steps - 3 * fresh
    assert recorder.counts[1].count(4) == EPOCHS - 3 if 4 in recorded else 4 not in recorder.counts[1]


def test_a_head_that_leaves_the_stack_makes_the_step_recorded_anew(tmp_path, recorder):
    config = config_for("seeds=3", "optimizer=adamw", "noise=gaussian", *LEAVES)
    expected, history, _ = ends(config, tmp_path / "taken")
    learned = [{name for name in epoch if name.endswith("/train/loss")} for epoch in history]
    assert len(learned[0]) == 3 > len(learned[-1]) > 0, "one has left, another goes on"
    found, told, _ = ends({**config, "cuda_graph": True}, tmp_path / "recorded")
    assert_same(found, expected)
    assert told == history
    assert recorder.counts[0].count(6) == len({len(names) for names in learned})


@pytest.mark.parametrize("at", [5, 7, 27])
def test_a_recorded_training_is_cut_at_any_batch_and_goes_on(at, tmp_path, recorder, monkeypatch):
    config = config_for("optimizer=adadelta", "noise=gaussian")
    expected, history, _ = ends(config, tmp_path / "taken")
    config["cuda_graph"] = True
    with monkeypatch.context() as patch:
        show, seen = Autoencoder._shown, []

        def watched(module, batch):
            seen.append(batch)
            if len(seen) == at:
                signal.raise_signal(signal.SIGUSR1)
            return show(module, batch)

        patch.setattr(Autoencoder, "_shown", watched)
        with pytest.raises(preemption.Preempted) as end:
            ends(config, tmp_path / "cut")
    assert end.value.step == at
    found, told, _ = ends(config, tmp_path / "cut")
    assert_same(found, expected)
    assert told == history
    assert recorder.counts[1], "something was replayed"


def conv_learned(make_recorder) -> torch.Tensor:
    data = small()
    data.features = replace(data.features, rows=data.features.rows.reshape(60, 1, 3, 3))
    torch.manual_seed(0)
    head, make = Conv((1, 3, 3), channels=[4]), partial(torch.optim.AdamW, lr=0.01)
    module = Autoencoder(
        head, Scaling((1, 3, 3)), Gaussian(0.1), nn.MSELoss(), make, metric=None, recorder=make_recorder
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(max_epochs=3, accelerator="cpu", num_sanity_val_steps=0, **quiet).fit(module, data)
    return nn.utils.parameters_to_vector(head.parameters()).detach()


def test_convolutions_are_recorded_too(recorder):
    assert torch.equal(conv_learned(CallingRecorder), conv_learned(None))
    assert recorder.counts[0]


def test_a_recording_is_of_one_shape_and_holds_until_a_number_changes():
    """y = 2 x by a step that notes what it saw: three as they are, then through the same memory."""
    seen = []

    def take(batch):
        seen.append(batch.data_ptr())
        return 2 * batch.sum()

    class Plain(CallingRecorder):
        def record(self, take):
            return take

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    step = Recorded(take, optimizer, Plain())
    batches = [torch.full((2,), float(value)) for value in range(6)]
    assert [float(step(batch)) for batch in batches] == [0, 4, 8, 12, 16, 20]
    assert seen[:3] == [batch.data_ptr() for batch in batches[:3]]
    assert seen[3] == seen[4] == seen[5]
    assert seen[3] not in seen[:3]
    step(torch.ones(3))
    step.follow()
    step(batches[0])
    assert seen[-1] == seen[3], "the same rate, the same recording"
    optimizer.param_groups[0]["lr"] = 0.25
    step.follow()
    step(batches[1])
    assert seen[-1] == batches[1].data_ptr()


REFUSED = {
    "trainer.accelerator=cpu": "cuda_graph: true needs a CUDA device, and trainer.accelerator=cpu",
    "trainer.devices=2": "cuda_graph: true needs trainer.devices=1",
    "compile_optimizer=true": "cuda_graph: true and compile_optimizer=true",
    "architecture=pca": "cuda_graph: true needs an architecture that is trained in steps",
}


def test_what_a_recording_cannot_be_of_is_refused_with_the_config():
    for option, said in REFUSED.items():
        if option == "architecture=pca":
            option = "architecture._target_=likeness.heads.linear.PCA"
        with pytest.raises(LikenessError) as refusal:
            config_of("trainer.accelerator=gpu", option, "cuda_graph=true")
        assert refusal.value.code == "CONFIG"
        assert said in refusal.value.where


def test_a_recording_needs_a_device_and_whole_epochs(tmp_path, monkeypatch):
    config = {**config_of(), "cuda_graph": True}
    folder = training.RunFolder(tmp_path, config)
    with pytest.raises(LikenessError, match="this head would be trained on cpu") as refusal:
        training.build_trainer(config, folder)
    assert (refusal.value.code, refusal.value.where) == ("CONFIG", "cuda_graph, trainer.accelerator")
    trainer = training.build_trainer(config_of("+trainer.max_steps=8"), folder)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    with pytest.raises(LikenessError, match="something is asked between two batches"):
        training._refuse_unrecorded(trainer)


ON_A_GPU = {
    "adadelta": ["optimizer=adadelta", "noise=gaussian", "scaling=standardize"],
    "adamw, cosine": ["optimizer=adamw", "noise=masking", "scheduler=cosine"],
    "sgd, clipped": ["optimizer=sgd", "trainer.gradient_clip_val=0.5"],
    "bf16": ["optimizer=adamw", "noise=none", "trainer.precision=bf16-mixed"],
    "seeds": ["seeds=3", "optimizer=adamw", "noise=gaussian", "callbacks=last_weights"],
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("graph", [False, True], ids=["as it is", "recorded"])
@pytest.mark.parametrize("variant", ON_A_GPU.values(), ids=ON_A_GPU)
def test_on_a_gpu_nothing_within_an_epoch_waits_and_a_graph_learns_the_same(variant, graph, tmp_path, monkeypatch):
    """While steps are recorded the host may wait; in the last epoch PyTorch raises where it would."""
    learn = Autoencoder._learn

    def watched(module, epoch):
        torch.cuda.set_sync_debug_mode("error" if module.current_epoch == 5 else "default")
        try:
            learn(module, epoch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    config = config_for("trainer.accelerator=gpu", "trainer.max_epochs=6", *variant)
    expected, history, _ = ends(config, tmp_path / "taken")
    monkeypatch.setattr(Autoencoder, "_learn", watched)
    found, told, _ = ends({**config, "cuda_graph": graph}, tmp_path / "again")
    for name, value in expected["scored"].items():
        torch.testing.assert_close(found["scored"][name].cpu(), value.cpu(), rtol=1e-3, atol=1e-5)
    assert [epoch.keys() for epoch in told] == [epoch.keys() for epoch in history]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_an_optimizer_that_was_loaded_goes_on_recorded():
    def learned(recorder) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(4, device="cuda"))
        optimizer = torch.optim.Adadelta([weight])

        def take(rows: torch.Tensor) -> torch.Tensor:
            optimizer.zero_grad()
            loss = ((rows * weight) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        rows = torch.arange(4.0, device="cuda")
        take(rows)
        optimizer.load_state_dict(optimizer.state_dict())
        step = take if recorder is None else Recorded(take, optimizer, recorder)
        for _ in range(6):
            step(rows)
        return weight.detach()

    torch.testing.assert_close(learned(CudaRecorder()), learned(None), rtol=1e-6, atol=0)
