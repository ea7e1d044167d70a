"""Train a head on the frozen features of a folder of pictures, and score it beside its baselines.

python train.py --help
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config import of_each_seed, register
from likeness.runs.launch import importing, reported, run

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@reported
def train(cfg: DictConfig) -> float | None:
    """One job: its folder gets everything, its value is the head's hit@1 on val."""
    with importing():
        each = of_each_seed(cfg)
        config = each[0]

        from likeness import assembly
        from likeness.reports.results import show
        from likeness.runs.folder import RunFolder

    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), config)
    trainer = assembly.build_trainer(config, folder)
    with folder.timed("extract"):
        extractor = assembly.build_extractor(config)
        data = assembly.build_data(config, assembly.find_features(config, extractor))
    with folder.timed("fit"):
        card = assembly.build_card(config, HydraConfig.get().runtime.choices, extractor, data)
        heads = assembly.build_heads(each, data.feature_shape, card)
        epochs = assembly.fit_heads(trainer, heads, data, folder)
    if not trainer.is_global_zero:
        return None
    with folder.timed("score"):
        methods = assembly.fit_methods(heads[0], data, config["seed"], folder, heads[1:])
        results = assembly.score_splits(methods, data, ("val", "test"), None, config["metric"])
        by_seed = assembly.score_seeds(heads, epochs, results, data, config["metric"])
    metrics = assembly.write_results(results, heads[0], data, folder, trainer, by_seed)
    assembly.draw_figures(results, metrics, methods, data, extractor, folder, config["figures"])
    assembly.send_media(folder)
    show(metrics, folder.path, brief=assembly.in_multirun())
    return assembly.validation_value(metrics)


if __name__ == "__main__":
    run(train)
