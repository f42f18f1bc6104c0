"""Builds the compiled core `c2am._core` with CMake; everything else is in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configures and builds the CMake project, and puts its module where setuptools wants it.

    Environment: `C2AM_CUDA` (AUTO, ON, OFF) and `CMAKE_CUDA_ARCHITECTURES` or `CUDAARCHS` (a list
    as CMake takes it: "80;90").
    """

    def build_extension(self, ext: Extension) -> None:
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = {
            "C2AM_CUDA": os.environ.get("C2AM_CUDA", "AUTO"),
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": module.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        for name in ("CUDAARCHS", "CMAKE_CUDA_ARCHITECTURES"):
            if name in os.environ:
                options["CMAKE_CUDA_ARCHITECTURES"] = os.environ[name]
        defines = [f"-D{name}={value}" for name, value in options.items()]
        # What an earlier build found lay in its isolated environment, which is gone; and there may
        # be an nvcc by now.
        self._cmake("--fresh", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *defines)
        self._cmake("--build", str(build))

    @staticmethod
    def _cmake(*arguments: str) -> None:
        subprocess.run(["cmake", *arguments], check=True)


setup(
    ext_modules=[Extension("c2am._core", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
