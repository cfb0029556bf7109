"""What can go wrong for a user, and the exit code that says so.

UserError                  2  a recipe, flag or path is wrong
├── DataError              3  a data file or row is wrong
├── SetupError             4  this machine lacks something, or another process holds the run
├── MemoryLimit            5  out of memory
├── Diverged               6  the loss or gradient is not a number any more
├── CheckpointError        7  no checkpoint can be trusted
├── RewardError            8  an answer was not written or not given its reward; what was learnt is saved
├── RankLost               9  a process or machine of the run died, hangs or never came
└── Preempted             75  told to stop; everything is saved and `--resume` goes on
    └── Interrupted      130  the same, by Ctrl-C
"""


class UserError(ValueError):
    """Something a person can mend: says what was found, what was expected and what to type next."""

    exit_code = 2


class DataError(UserError):
    """A data file or row is wrong; names the file, the row and the key."""

    exit_code = 3


class SetupError(UserError):
    """This machine lacks a package, device or lock that the run needs."""

    exit_code = 4


class MemoryLimit(UserError):
    """Out of memory; names what was too large."""

    exit_code = 5


class Diverged(UserError):
    """A loss or gradient was not finite, and the recipe says to stop."""

    exit_code = 6


class CheckpointError(UserError):
    """A checkpoint is damaged, unfinished or of another run."""

    exit_code = 7


class RewardError(UserError):
    """An answer was not written, or not given its reward: names the writer, or the reward and the row, and why."""

    exit_code = 8


class RankLost(UserError):
    """A process or machine of the run died, hangs or never came: names it, its host and what it was doing."""

    exit_code = 9


class Preempted(UserError):
    """The run was told to stop and has saved everything."""

    exit_code = 75


class Interrupted(Preempted):
    """The run was told to stop from the keyboard and has saved everything."""

    exit_code = 130
