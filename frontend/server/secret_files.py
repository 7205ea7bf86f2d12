"""Files with keys: who else on this host can change or read them."""

import logging
import stat
from pathlib import Path

from frontend.errors import StartupError

_log = logging.getLogger(__name__)


def check_secret_file(path: Path) -> None:
    """Refuse a file that every user of this host may write: each could let himself in. Warn if every user may read it.

    Raises StartupError with the mode. A missing file is left to what reads it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & stat.S_IWOTH:
        raise StartupError(f"every user of this host may write {path} (mode {mode:04o}); accepted: chmod o-w")
    if mode & stat.S_IROTH:
        _log.warning("every user of this host may read %s (mode %04o); better: chmod o-r", path, mode)
