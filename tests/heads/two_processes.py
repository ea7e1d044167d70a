"""A script that Lightning starts twice: trains a small head and prints what each process ends with."""

import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from likeness.features.datamodule import FeatureData
from likeness.features.extraction import Features
from likeness.heads.autoencoder import Autoencoder
from likeness.heads.dense import Dense
from likeness.heads.noise import NoNoise
from likeness.heads.scaling import Scaling
from likeness.images.table import Row, tabulate
from likeness.retrieval.metric import SimilarityRetrieval


def main(processes: int) -> None:
    labels = torch.arange(61) % 3
    rows = torch.randn(61, 6, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    listed = [Row(f"{i:02d}", "abc"[label], "train" if i < 40 else "val") for i, label in enumerate(labels.tolist())]
    features = Features(tabulate(Path("/x"), listed, 0, (0.6, 0.2, 0.2)), rows, np.zeros((61, 32), np.uint8), 0, 61)
    torch.manual_seed(0)
    module = Autoencoder(
        Dense((6,), widths=[3]),
        Scaling((6,), "standardize"),
        NoNoise(),
        nn.MSELoss(),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        metric=SimilarityRetrieval(ks=(1, 5), only_hits=True),
    )
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, FeatureData(features, batch_size=8, seed=0))
    values = [float(trainer.callback_metrics[name]) for name in ("train/loss", "val/loss", "val/hit@1")]
    weights = float(sum(parameter.detach().double().square().sum() for parameter in module.parameters()))
    sys.stdout.write(f"\nRESULT {' '.join(f'{value:.6f}' for value in (*values, weights))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
