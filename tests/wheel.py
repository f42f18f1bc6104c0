"""Run by the Python of an environment into which a wheel of c2am was installed: does it work?"""

import importlib.metadata
import sys
from importlib import resources

import torch

import c2am
from c2am import _core, kernels, ops


def main() -> None:
    """Fails where something is missing, or comes from elsewhere."""
    for module in (c2am, _core, kernels):
        assert module.__file__.startswith(sys.prefix), module.__file__
    assert importlib.metadata.version("c2am") == c2am.__version__
    files = resources.files("c2am")
    assert files.joinpath("py.typed").is_file()
    assert "methods" in files.joinpath("recipes", "demo.yaml").read_text()
    assert any(f.name.endswith(".j2") for f in files.joinpath("viz", "templates").iterdir())
    ops.random_walk(torch.rand(1, 4, 5), torch.rand(4, 5), backend="native")
    assert ops.launches["random_walk", "native"] == 1
    image = torch.randint(0, 256, (9, 11, 3), dtype=torch.uint8)
    marginals = ops.dense_crf(image, torch.rand(3, 9, 11), backend="native")
    assert torch.allclose(marginals.sum(0), torch.ones(9, 11), atol=1e-4)
    print(f"c2am {c2am.__version__} works with torch {torch.__version__}, {sys.version}")


if __name__ == "__main__":
    main()
