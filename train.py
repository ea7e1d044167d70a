"""Train a head on the frozen features of a folder of pictures, and score it beside its baselines.

python train.py --help
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config import checked, register
from likeness.runs.launch import reported, run

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@reported
def train(cfg: DictConfig) -> float | None:
    """One job: its folder gets everything, its value is the head's hit@1 on val."""
    config = checked(cfg)

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
        module = assembly.build_head(config, data.feature_shape, card)
        assembly.fit(trainer, module, data, folder)
    if not trainer.is_global_zero:
        return None
    with folder.timed("score"):
        methods = assembly.fit_methods(module, data, config["seed"], folder)
        results = assembly.score_splits(methods, data, ("val", "test"), None, config["metric"])
    metrics = assembly.write_results(results, module, data, folder, trainer)
    assembly.draw_figures(results, metrics, methods, data, extractor, folder, config["figures"])
    assembly.send_media(folder)
    show(metrics, folder.path, brief=assembly.in_multirun())
    return assembly.validation_value(metrics)


if __name__ == "__main__":
    run(train)
