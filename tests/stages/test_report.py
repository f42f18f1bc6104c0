from c2am.config import PipelineConfig
from c2am.stages import report


def test_expected_stages_skip_the_training_of_cam():
    config = PipelineConfig(methods=("cam", "c2am"))
    stages = report.expected_stages(config)
    assert ("front_door", "c2am") in stages
    assert ("front_door", "cam") not in stages
    assert stages[:2] == [("classifier", None), ("global_cam", None)]
    assert len(stages) == 2 + 1 + 6 * 2
