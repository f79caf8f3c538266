"""The warm template: a process that has imported an engine, from which workers are forked.

A start of vLLM on two cores takes 35 s, of which 30 s are the imports of three Python processes, one
after the other. Forked from a process that has imported everything, a worker takes 5 s. A template is a
cache, not a need: whatever it cannot do, a cold start can.

It is run by the engine's own Python, with the environment that a cold worker would have, because what
libraries read when they are loaded is not read again after a fork. It imports in a thread of low
priority, computes nothing, starts no thread that it can avoid, and never touches the GPU.

The control socket is a Unix stream socket that carries one JSON object a line.

To the template:
    ``{"op": "fork"}`` with two file descriptors: a nanny's control socket and the worker's log
        Forks a nanny (`local_llm_worker.nanny.life`) that starts its worker by a fork as well. The nanny
        is no child of the template, which may be killed at any time without harm to workers.
    end of file
        The supervisor is gone, or needs the template no more: it leaves at once.

From the template:
    ``{"event": "ready", "seconds": 9.7, "pss_bytes": 560000000, "threads": 2, "skipped": ["..."]}``
        It has imported everything and can be forked.
    ``{"event": "unfit", "message": "..."}``
        It cannot be one, and why; it leaves.
    ``{"event": "forked", "pid": 4711}``
        The nanny's process id. It obeys the nanny's protocol from here on.
    ``{"event": "refused", "message": "..."}``
        No nanny: the engine was reinstalled meanwhile, or no process could be made.
"""
