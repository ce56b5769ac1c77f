"""Puts the C library and the `shardmill` program into the package; all else is in pyproject.toml.

They are taken from SHARDMILL_BUILD (a build folder) when that is set, else made by `make` of the checkout that this folder
lies in. Nothing here depends on the version of CPython, so one wheel serves all of them.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1 it was wheel's
    from wheel.bdist_wheel import bdist_wheel

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NATIVE = ("libshardmill.so", "shardmill")


def version():
    """The Makefile's, so that there is one; a source distribution carries it in PKG-INFO."""
    for path, pattern in ((ROOT / "Makefile", r"^VERSION\s*=\s*(\S+)"), (HERE / "PKG-INFO", r"^Version: (\S+)")):
        found = re.search(pattern, path.read_text(), re.M) if path.is_file() else None
        if found:
            return found.group(1)
    raise SystemExit("shardmill: this folder is not in a checkout of Shardmill (hint: pip install CHECKOUT/client/python)")


def native_files():
    """Paths of the library and the program; builds them when SHARDMILL_BUILD does not name a folder that has them."""
    build = os.environ.get("SHARDMILL_BUILD")
    if build is None:
        build = ROOT / "build"
        if not (ROOT / "client" / "c" / "shardmill.h").is_file():
            raise SystemExit("shardmill: the C sources are not here (hint: pip install CHECKOUT/client/python, or "
                             "SHARDMILL_BUILD=folder with libshardmill.so and shardmill)")
        try:
            made = subprocess.run(["make", "-C", str(ROOT), "-s", "-j2", "all", "BUILD=build"])
        except FileNotFoundError:
            raise SystemExit("shardmill: 'make' is not installed (hint: apt install make, then `make deps`)") from None
        if made.returncode != 0:
            raise SystemExit(f"shardmill: the C library could not be built (hint: `make -C {ROOT} deps` installs the "
                             "Debian packages that it needs)")
    files = [pathlib.Path(build) / name for name in NATIVE]
    for file in files:
        if not file.is_file():
            raise SystemExit(f"shardmill: '{file}' is not there (hint: run `make` in {ROOT})")
    return files


class BuildWithNative(build_py):
    """build_py that adds _native/."""

    def run(self):
        super().run()
        target = pathlib.Path(self.build_lib) / "shardmill" / "_native"
        target.mkdir(parents=True, exist_ok=True)
        for file in native_files():
            shutil.copy2(file, target / file.name)


class NativeDistribution(Distribution):
    """Not pure, though no extension module is compiled."""

    def has_ext_modules(self):
        return True


class PlatformWheel(bdist_wheel):
    """A wheel for every CPython 3, but for this kind of machine only."""

    def get_tag(self):
        return "py3", "none", re.sub(r"[-.]", "_", sysconfig.get_platform())


setup(version=version(), distclass=NativeDistribution, cmdclass={"build_py": BuildWithNative, "bdist_wheel": PlatformWheel})
