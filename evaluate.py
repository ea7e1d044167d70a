"""Score a trained head on any split, on other pictures, or against a gallery.

python evaluate.py run=outputs/train/2026-01-31_12-00-00
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from likeness.config.checking import checked
from likeness.config.composing import register
from likeness.runs.launch import importing, reported, run

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@reported
def evaluate(cfg: DictConfig) -> float | None:
    """One evaluation: the numbers that training gave, or those of other pictures."""
    with importing():
        config = checked(cfg)

        from likeness import outside
        from likeness.assembly import baselines, extracting, reporting, restoring, scoring, splitting, training
        from likeness.reports.results import show
        from likeness.runs.folder import RunFolder

    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir), config)
    training.add_trackers(config, folder)
    with folder.timed("extract"):
        path = restoring.checkpoint_path(config)
        module, extractor, card = restoring.restore(path, config)
        config = restoring.as_trained(config, card)
        data = splitting.build_data(config, extracting.find_features(config, extractor))
    with folder.timed("score"):
        methods = baselines.read_methods(module, data, config["splits"], card, path.parent)
        rejection = outside.score_outside(methods, data, extractor, config)
        results = scoring.score_splits(methods, data, config["splits"], config["gallery"], config["metric"])
    metrics = reporting.write_results(results, module, data, folder, rejection=rejection.summary if rejection else None)
    reporting.draw_figures(results, metrics, methods, data, extractor, folder, config["figures"])
    if rejection and reporting.are_drawn(config["figures"]):
        rejection.draw(folder.path / "figures")
    reporting.send_media(folder)
    show(metrics, folder.path, by_class=True)
    return None


if __name__ == "__main__":
    run(evaluate)
