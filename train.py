"""Train a head on the frozen features of a folder of pictures, and score it beside its baselines.

python train.py --help
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config.checking import of_each_seed
from likeness.config.composing import register
from likeness.runs.launch import importing, reported, run

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@reported
def train(cfg: DictConfig) -> float | None:
    """One job: its folder gets everything, its value is the head's hit@1 on val."""
    with importing():
        each = of_each_seed(cfg)
        config = each[0]

        from likeness.assembly import baselines, extracting, modules, reporting, scoring, splitting, training
        from likeness.assembly.describing import in_multirun
        from likeness.reports.results import show
        from likeness.runs.folder import RunFolder

    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), config)
    trainer = training.build_trainer(config, folder)
    with folder.timed("extract"):
        extractor = extracting.build_extractor(config)
        data = splitting.build_data(config, extracting.find_features(config, extractor))
    with folder.timed("fit"):
        card = modules.build_card(config, HydraConfig.get().runtime.choices, extractor, data)
        heads = modules.build_heads(each, data.feature_shape, card)
        epochs = training.fit_heads(trainer, heads, data, folder)
    if not trainer.is_global_zero:
        return None
    with folder.timed("score"):
        methods = baselines.fit_methods(heads[0], data, config["seed"], folder, heads[1:])
        results = scoring.score_splits(methods, data, ("val", "test"), None, config["metric"])
        by_seed = scoring.score_seeds(heads, epochs, results, data, config["metric"])
    metrics = reporting.write_results(results, heads[0], data, folder, trainer, by_seed)
    reporting.draw_figures(results, metrics, methods, data, extractor, folder, config["figures"])
    reporting.send_media(folder)
    show(metrics, folder.path, brief=in_multirun())
    return reporting.validation_value(metrics)


if __name__ == "__main__":
    run(train)
