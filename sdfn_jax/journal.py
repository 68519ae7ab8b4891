"""A journal of long work, one JSON line for each piece done: killed at any moment, the work goes on behind it."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdfn_jax import files
from sdfn_jax.errors import UserError


class Journal:
    """The pieces that are done, on disk; in memory only where each stands."""

    def __init__(self, path: str | Path, made_by: Mapping):
        """Opens a journal or begins one; a last line torn by a kill is cut off.

        Args:
          path: of the file.
          made_by: what decides the pieces; work goes on under the same alone.

        Raises:
          UserError: for a journal of other work, a damaged one, or one that another command writes into.
        """
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        try:
            files.lock(
                self._file,
                f"{self._path}: another command writes into this folder now; wait for its end, or give another folder",
            )
        except UserError:
            self.close()
            raise
        self._places: dict[str, int] = {}
        first = (json.dumps(made_by) + "\n").encode()
        self._file.seek(0)
        found = self._file.readline()
        if not found.endswith(b"\n"):
            self._file.truncate(0)
            self._file.write(first)
            self._file.flush()
        elif found != first:
            self.close()
            raise UserError(
                f"{self._path} was begun with other networks or settings: {found.decode(errors='replace').strip()}; "
                f"now they are {json.dumps(made_by)}. Go on with those, or delete the file to begin anew."
            )
        else:
            self._take_up()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> dict:
        """Reads a piece from disk."""
        self._file.seek(self._places[key])
        return json.loads(self._file.readline())["value"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def write(self, key: str, value: Mapping) -> None:
        """Adds a piece; a later one of the same key replaces it."""
        line = (json.dumps({"key": key, "value": value}, allow_nan=False) + "\n").encode()
        self._places[key] = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()

    def delete(self) -> None:
        """Removes the file, when all that it was for is done."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _take_up(self) -> None:
        place = self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                self._file.truncate(place)
                return
            try:
                self._places[json.loads(line)["key"]] = place
            except (ValueError, KeyError, TypeError) as error:
                self.close()
                raise UserError(f"{self._path} is damaged ({error}); delete it to begin anew.") from error
            place += len(line)
