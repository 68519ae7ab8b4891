"""Weights on the Hugging Face hub, as `hf://owner/name/file[@revision]`, through huggingface_hub and its cache.

A revision is a branch, a tag or a commit; without one it is `main`. The cache keeps files by their commit, and what is
in it is not asked for again: a run that resumes reads the file that it began with.
"""

import dataclasses
import re
from pathlib import Path
from types import ModuleType

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.extras import install_command

HUB_SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([^/@]+/[^/@]+)/([^@]+)(?:@([^@]+))?")
# Where the cache has a file: its folder's name has `--` for `/`.
_CACHED = re.compile(r".*/models--(.+?)--(.+)/snapshots/([0-9a-f]{40})/(.+)")


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A file in a repository of models.

    Attributes:
      repository: `owner/name`.
      file: its path there.
      revision: branch, tag or commit.
    """

    repository: str
    file: str
    revision: str = "main"

    @property
    def url(self) -> str:
        """The address that `parse` reads."""
        return f"{HUB_SCHEME}{self.repository}/{self.file}@{self.revision}"

    def cached_file(self) -> Path:
        """Returns its path in the cache, or a path where nothing is."""
        hub = _client()
        found = hub.try_to_load_from_cache(self.repository, self.file, revision=self.revision)
        if isinstance(found, str):
            return Path(found)
        return Path(hub.constants.HF_HUB_CACHE) / f"models--{self.repository.replace('/', '--')}" / self.file

    def fetch(self) -> Path:
        """Returns its path in the cache, downloading it if it is not there.

        Raises:
          UserError: if there is no such file, it is not public, or the hub cannot be reached.
        """
        path = self.cached_file()
        if path.is_file():
            return path
        hub = _client()
        try:
            return Path(hub.hf_hub_download(self.repository, self.file, revision=self.revision))
        except hub.errors.LocalEntryNotFoundError as error:  # there is no answer, and nothing in the cache
            raise UserError(
                f"{self.url} cannot be downloaded from {hub.constants.ENDPOINT}, and is not in the cache "
                f"({hub.constants.HF_HUB_CACHE}). Without a connection: fetch the file elsewhere and name it instead "
                "of the address, or copy that folder (the environment variable HF_HUB_CACHE names another)"
            ) from error
        except (
            hub.errors.RepositoryNotFoundError,
            hub.errors.RevisionNotFoundError,
            hub.errors.RemoteEntryNotFoundError,
        ) as error:
            raise UserError(
                f"{self.url}: {hub.constants.ENDPOINT} has no such repository, revision or file, or it is not public: "
                "look at its page; for one that you have access to, sign in (hf auth login)"
            ) from error
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.url} cannot be downloaded: {reason[:300]}") from error


def parse(address: str) -> HubFile:
    """Reads `hf://owner/name/file[@revision]`.

    Raises:
      UserError: for anything else.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: an address on the hub is hf://owner/name/file, or hf://owner/name/file@revision")
    repository, file, revision = match.groups()
    return HubFile(repository, file, revision or HubFile.revision)


def pinned(path: Path) -> str | None:
    """Returns the address, with its commit, of a file in the cache; None for any other file."""
    match = _CACHED.fullmatch(path.absolute().as_posix())
    if match is None:
        return None
    owner, name, commit, file = match.groups()
    return HubFile(f"{owner}/{name}", file, commit).url


def _client() -> ModuleType:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise UserError(
            f"addresses on the hub ({HUB_SCHEME}...) need huggingface_hub: {install_command('hub')}"
        ) from error
    return huggingface_hub
