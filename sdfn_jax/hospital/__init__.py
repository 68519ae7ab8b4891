"""Results where radiology looks for them: as DICOM objects in the film's study, and back into the archive."""

from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.core.extras import install_command

try:
    import highdicom  # noqa: F401 - which every use of this room needs, and pydicom with it
except ImportError as error:
    raise MissingPackageError(f"DICOM results need the package {error.name}: {install_command('hospital')}") from error
