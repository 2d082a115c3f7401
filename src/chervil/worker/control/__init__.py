"""Remote control: what a node answers and does when it is told to.

Own commands are functions of the node's :class:`~chervil.worker.control.state.State` and
their arguments, registered by decorators as in Celery::

    from chervil.worker.control import inspect_command

    @inspect_command()
    def open_files(state):
        return len(os.listdir("/proc/self/fd"))

They run in the node's process, in the thread of remote control: one that takes long
holds up the others, and no task.
"""

from chervil.worker.control.registry import Command, Panel, control_command, inspect_command

__all__ = ["Command", "Panel", "control_command", "inspect_command"]
