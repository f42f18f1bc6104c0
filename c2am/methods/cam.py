"""CAM of the baseline classifier as it is (Zhou et al. 2016): the first row of the table."""

from c2am.methods.method import Method as _Method


class Method(_Method):
    """Trains nothing; its maps are those of the stage `classifier`."""

    trains = False
