"""What pyproject.toml cannot say: a wheel carries `configs/` inside the package, as `sdfn_jax/configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sdfn_jax*", "tfds_builders*"]), "sdfn_jax.configs"],
    package_dir={"sdfn_jax.configs": "configs"},
)
