"""The spool: durability. Belongs here: everything that writes to, reads from or owns lanes of the volume. Does not
belong here: when and where a message is tried (schedule, deliver), what is said of it (bounce, observe).

    volume      every system call            record, layout   bytes and names
    protocol    who owns a lane, in steps    replay, reading  segments and messages read back
    iothread    the one thread that writes   lane             the index in memory
    mate        a process that syncs         syncer           the worker's end of it
    journal     group commit                 blob             content in files of their own
    core        the lanes of this worker     store            `Spool`, the public face
    adopt, share, compact, space, keeper     take-over, sharing, compaction, room, and the task that does them
"""

from .blob import Blob, BlobReader
from .cache import Live, Stored
from .lane import Gone
from .layout import new_worker
from .liveness import FlockLiveness, LeaseLiveness, Liveness, Verdict
from .record import Damaged, State
from .store import Spool
from .volume import Disk, Volume

__all__ = [
    "Blob",
    "BlobReader",
    "Damaged",
    "Disk",
    "FlockLiveness",
    "Gone",
    "LeaseLiveness",
    "Live",
    "Liveness",
    "Spool",
    "State",
    "Stored",
    "Verdict",
    "Volume",
    "new_worker",
]
