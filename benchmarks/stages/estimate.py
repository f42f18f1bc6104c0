"""How long the whole of PASCAL VOC 2012 would take at measured speeds."""

from collections.abc import Mapping

from c2am.config import PipelineConfig, TrainConfig
from c2am.data.voc import TRAIN_AUG_SIZE


def minutes(config: PipelineConfig, rates: Mapping[str, float]) -> dict[str, float] | None:
    """Minutes of each stage from the classifier to the pseudo masks, for one method that trains.

    Args:
        config: The recipe; its lists are taken to be VOC's, 10,582 training images.
        rates: Images per second of the stages `classifier`, `cam`, `irn_labels`, `irn` and
            `pseudo_masks`. The Global CAM counts as `cam`, the fine-tuning as `classifier`.

    Returns:
        None if a rate is missing.
    """
    images = {
        "classifier": ("classifier", _trained(config.classifier)),
        "global_cam": ("cam", TRAIN_AUG_SIZE),
        "front_door": ("classifier", _trained(config.front_door)),
        "cam": ("cam", TRAIN_AUG_SIZE),
        "irn_labels": ("irn_labels", TRAIN_AUG_SIZE),
        "irn": ("irn", _trained(config.irn)),
        "pseudo_masks": ("pseudo_masks", TRAIN_AUG_SIZE),
    }
    if not {stage for stage, _ in images.values()} <= rates.keys():
        return None
    return {name: count / rates[stage] / 60 for name, (stage, count) in images.items()}


def _trained(config: TrainConfig) -> float:
    return config.steps * config.batch_size if config.steps else config.epochs * TRAIN_AUG_SIZE
