"""Score a trained head on any split, on other pictures, or against a gallery.

python evaluate.py run=outputs/train/2026-01-31_12-00-00
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config import checked, register
from likeness.runs.launch import importing, reported, run

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@reported
def evaluate(cfg: DictConfig) -> float | None:
    """One evaluation: the numbers that training gave, or those of other pictures."""
    with importing():
        config = checked(cfg)

        from likeness import assembly, outside
        from likeness.reports.results import show
        from likeness.runs.folder import RunFolder

    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), config)
    assembly.add_trackers(config, folder)
    with folder.timed("extract"):
        path = assembly.checkpoint_path(config)
        module, extractor, card = assembly.restore(path, config)
        config = assembly.as_trained(config, card)
        data = assembly.build_data(config, assembly.find_features(config, extractor))
    with folder.timed("score"):
        methods = assembly.read_methods(module, data, config["splits"], card, path.parent)
        rejection = outside.score_outside(methods, data, extractor, config)
        results = assembly.score_splits(methods, data, config["splits"], config["gallery"], config["metric"])
    metrics = assembly.write_results(results, module, data, folder, rejection=rejection.summary if rejection else None)
    assembly.draw_figures(results, metrics, methods, data, extractor, folder, config["figures"])
    if rejection and assembly.are_drawn(config["figures"]):
        rejection.draw(folder.path / "figures")
    assembly.send_media(folder)
    show(metrics, folder.path, by_class=True)
    return None


if __name__ == "__main__":
    run(evaluate)
