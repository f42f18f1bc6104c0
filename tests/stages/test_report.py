import pytest

from c2am.config import PipelineConfig
from c2am.stages import report


def test_expected_stages_skip_the_training_of_cam():
    config = PipelineConfig(methods=("cam", "c2am"))
    stages = report.expected_stages(config, dataset=None)
    assert ("front_door", "c2am") in stages
    assert ("front_door", "cam") not in stages
    assert stages[:2] == [("classifier", None), ("global_cam", None)]
    assert len(stages) == 2 + 1 + 6 * 2


@pytest.mark.parametrize("methods", [("cam",), ("cam", "continued", "constant")])
def test_a_run_without_c2am_lacks_no_global_cam(methods):
    stages = report.expected_stages(PipelineConfig(methods=methods), dataset=None)
    assert ("classifier", None) in stages
    assert ("global_cam", None) not in stages
