"""Credentials of an archive: from the environment, or from a netrc file; never from a command line."""

import ipaddress
import os
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from sdfn_jax.core.errors import UserError

_FIELDS = ("TOKEN", "USER", "PASSWORD")


class _Bearer(AuthBase):
    """A token (RFC 6750)."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _None(AuthBase):
    """No credentials; unlike None, `requests` then looks for none itself."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def where(flag: str) -> str:
    """Returns where the credentials of the archive that a flag names are looked for."""
    token, user, password = (_variable(flag, field) for field in _FIELDS)
    return f"set the environment variables {user} and {password}, or {token}, or write them into ~/.netrc"


def find(flag: str, url: str) -> AuthBase:
    """Returns the credentials of an archive: `SDFN_FROM_TOKEN`, `SDFN_FROM_USER` with its password, or netrc's.

    Raises:
      UserError: for a user without a password, or for credentials that would be sent unencrypted to another machine.
    """
    token, user, password = (os.environ.get(_variable(flag, field)) for field in _FIELDS)
    found: AuthBase | None = None
    if token:
        found = _Bearer(token)
    elif user and password:
        found = HTTPBasicAuth(user, password)
    elif user or password:
        raise UserError(f"{_variable(flag, 'USER')} and {_variable(flag, 'PASSWORD')} go together; one is not set")
    elif in_file := requests.utils.get_netrc_auth(url):
        found = HTTPBasicAuth(*in_file)
    if found is None:
        return _None()
    if not is_encrypted(url):
        raise UserError(f"--{flag}={url}: credentials would travel unencrypted; use https://")
    return found


def is_encrypted(url: str) -> bool:
    """Returns whether nobody between can read what travels to an address: by TLS, or because it is this machine."""
    if urlsplit(url).scheme == "https":
        return True
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variable(flag: str, field: str) -> str:
    return f"SDFN_{flag.upper()}_{field}"
