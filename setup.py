"""What pyproject.toml cannot say: the trained weights and codes go into the wheel as ``rgz/weights``.

A package-dir entry could place them too, but would change how editable installs find ``studies``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "vdvae.safetensors",
    "codes.h5",
    "classifier.safetensors",
    "density.safetensors",
)


class BuildWithWeights(build_py):
    """Copy the committed artifacts beside the modules; an editable install reads them from ``artifacts/``."""

    def run(self):
        if not self.editable_mode:  # modules that were removed since an earlier build
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "rgz", "weights")
            self.mkpath(str(folder))
            for name in SHIPPED:
                self.copy_file(str(Path("artifacts", name)), str(folder / name))


setup(cmdclass={"build_py": BuildWithWeights})
