"""The optional packages of pyproject.toml (`dicom`, `viewer`, ...): the command that installs them."""

from importlib import metadata


def install_command(extra: str) -> str:
    """Returns the command that installs an extra, `pip install 'sdfn_jax[viewer]'`.

    Pip adds the extra's packages to the installed sdfn_jax, editable or from a wheel, without looking for sdfn_jax in
    an index. If sdfn_jax runs from a checkout without being installed, the command is one for the checkout's folder.
    """
    try:
        metadata.distribution("sdfn_jax")
    except metadata.PackageNotFoundError:
        return f"pip install -e '.[{extra}]'"
    return f"pip install 'sdfn_jax[{extra}]'"
