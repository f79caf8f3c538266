"""The nanny: one small process beside each worker, which sees to it that nothing of the worker stays.

It is a session of its own and the child subreaper of all that the worker starts, so that whatever
forks, calls `setsid` or loses its parent in there remains its descendant. When the worker ends, or the
control socket to the supervisor closes, for whatever reason, the nanny kills every descendant it has,
unlinks the shared memory they left, removes the worker's temporary folder, and leaves.

Standard library only, and quick to start: it is run by the supervisor's own Python, or forked from a
warm template (`local_llm_worker.nanny.life.run`).

The control socket is a Unix stream socket that carries one JSON object a line.

To the nanny:
    ``{"op": "launch", "argv": [...], "env": {...}, "cwd": "/...", "temporary": "/...", "stop_signal": 15}``
        The first message, once. Without a stop signal: SIGTERM.
    ``{"op": "stop", "grace_seconds": 10}``
        The stop signal now, SIGKILL to everything after the grace. Repeated: the earlier end counts.
    end of file
        The supervisor is gone: SIGKILL to everything, without grace.

From the nanny:
    ``{"event": "started", "pid": 4711}``
        The worker's program runs (the exec has succeeded).
    ``{"event": "not_started", "message": "..."}``
        It does not, and why. Followed by ``gone``.
    ``{"event": "exited", "code": 3 | null, "signal": 9 | null}``
        The worker's main process has ended; sent at once.
    ``{"event": "stuck", "pids": [...]}``
        These survive SIGKILL so far (uninterruptible sleep in the kernel); the nanny goes on trying.
    ``{"event": "trouble", "message": "..."}``
        Something odd that did not keep it from its work.
    ``{"event": "gone", "swept": [{"pid": .., "name": ".."}], "shm_unlinked": [..], "shm_unclaimed": [..]}``
        Last: no descendant is left. ``swept`` are those that had to be killed. ``shm_unclaimed`` appeared
        just before another program killed the worker, and nobody holds it: perhaps the worker's, so it is
        reported and left.
"""
