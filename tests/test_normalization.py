import torch

from c2am.normalization import Normalization


def test_conversion_to_another_networks_input():
    image = 255 * torch.rand(2, 3, 4, 5)
    one = Normalization(mean=(123.0, 116.0, 103.0), std=(58.0, 57.0, 56.0))
    other = Normalization(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
    views = [
        (image - torch.tensor(n.mean)[:, None, None]) / torch.tensor(n.std)[:, None, None]
        for n in (one, other)
    ]
    torch.testing.assert_close(one.convert(views[0], other), views[1])
    assert one.convert(views[0], one) is views[0]
