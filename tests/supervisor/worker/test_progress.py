"""From log lines and figures to progress. No clock, no process."""

from __future__ import annotations

import pytest

from local_llm.worker.progress import COMPUTING, READ_BYTES, LoadPhase, LoadProgress, Reading, read_line
from tests.supervisor.worker.recorded import recorded

P = LoadPhase
WORKER = "(Worker pid=1201) INFO 11-22 14:34:01 "

# As vLLM 0.32 writes them; those that need a GPU are from its source.
LINES = [
    ("phase: import", Reading(P.ENGINE_START)),
    ("phase: weights", Reading(P.WEIGHTS)),
    ("phase: ready", Reading(P.SERVER_START)),
    (
        WORKER + "[cpu_model_runner.py:68] Starting to load model /models/SmolLM2-135M-Instruct...",
        Reading(P.WEIGHTS),
    ),
    (
        "Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:01<00:01,  1.60s/it]",
        Reading(P.WEIGHTS, 40),
    ),
    (
        "Loading safetensors checkpoint shards (eager): 100% Completed | 5/5 [00:01<00:00,  1.60s/it]",
        Reading(P.WEIGHTS, 100),
    ),
    ("Loading pt checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]", Reading(P.WEIGHTS, 0)),
    ("Multi-thread loading shards:  50% Completed | 1/2 [00:01<00:01,  1.00s/it]", Reading(P.WEIGHTS, 50)),
    (
        "Loading safetensors using Runai Model Streamer:   7% Completed | 20/290 [00:03<00:40, 6.7it/s]",
        Reading(P.WEIGHTS, 7),
    ),
    (
        WORKER + "[gpu_model_runner.py:5149] Model loading took 2.9 GiB memory and 3.100000 seconds",
        Reading(P.PROFILING),
    ),
    (WORKER + "[cpu_model_runner.py:87] Warming up model for the compilation...", Reading(P.COMPILE)),
    (
        WORKER + "[backends.py:1104] [backbone] Using cache directory: /c/backbone for vLLM's torch.compile",
        Reading(P.COMPILE),
    ),
    (WORKER + "[backends.py:1166] [backbone] Dynamo bytecode transform time: 4.21 s", Reading(P.COMPILE)),
    (
        WORKER + "[backends.py:382] [backbone] Cache the graph of compile range (1, 2048) for later use",
        Reading(P.COMPILE),
    ),
    (
        WORKER + "[backends.py:398] [backbone] Compiling a graph for compile range (1, 2048) takes 9.61 s",
        Reading(P.COMPILE),
    ),
    (WORKER + "[monitor.py:53] [backbone] torch.compile took 14.05 s in total", Reading(P.PROFILING)),
    (WORKER + "[monitor.py:91] [backbone] Initial profiling/warmup run took 28.49 s", Reading(P.PROFILING)),
    (WORKER + "[gpu_worker.py:759] Available KV cache memory: 12.51 GiB", Reading(P.PROFILING)),
    (
        "(EngineCore pid=1) INFO 11-22 [kv_cache_utils.py:2327] CPU KV cache size: 46,592 tokens, ...",
        Reading(P.WARM_UP),
    ),
    (
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  42%|####      | 28/67 [00:02<00:03]",
        Reading(P.GRAPH_CAPTURE, 42),
    ),
    ("Capturing CUDA graphs (FULL): 100%|##########| 35/35 [00:02<00:00]", Reading(P.GRAPH_CAPTURE, 100)),
    ("Capturing prefill CUDA graphs:   3%|          | 1/35 [00:00<00:03]", Reading(P.GRAPH_CAPTURE, 3)),
    ("DeepGEMM warmup:  12%|#         | 120/1000 [00:01<00:08, 99.1it/s]", Reading(P.WARM_UP, 12)),
    (
        "JIT kernel warmup (9 compile keys):  33%|###       | 1/3 [00:01<00:02, 1.2kernel/s]",
        Reading(P.WARM_UP, 33),
    ),
    (WORKER + "[kernel_warmup.py:291] Warming up FlashInfer attention.", Reading(P.WARM_UP)),
    (
        "(EngineCore pid=1) [core.py:402] init engine (profile, create kv cache, warmup model) took 5.34 s",
        Reading(P.SERVER_START),
    ),
    ("INFO:     Application startup complete.", Reading(P.SERVER_START)),
    # And what must not be taken for progress:
    (WORKER + "[cpu_model_runner.py:91] Warming up done.", None),
    ("[shm_broadcast.py:871] No available shared memory broadcast block found in 60 seconds. This ...", None),
    ("Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup. This is ...", None),
    ("Auto-prefetch is disabled because the filesystem (EXT4) is not a recognized network FS", None),
    ("", None),
]


@pytest.mark.parametrize(("line", "reading"), LINES)
def test_lines(line: str, reading: Reading | None) -> None:
    """Each line that is known, and some that look alike."""
    assert read_line(line) == reading


def phases_of(log: str) -> list[str]:
    """The words at each step forward of a recorded load."""
    progress = LoadProgress(0.0)
    return [progress.at(1.0).in_words() for line in recorded(log) if progress.take_line(line, 1.0)]


def test_a_recorded_load() -> None:
    """A real load passes through its phases once each, in order."""
    assert phases_of("loads") == ["weights", "weights 100%", "warm-up", "server start"]


def test_a_recorded_compilation() -> None:
    """Compiled, on the CPU: what vLLM repeats every minute while it compiles is no progress."""
    compiled = ["weights", "weights 100%", "compile", "profiling", "warm-up", "server start"]
    assert phases_of("loads-compiled") == compiled
    assert sum("No available shared memory" in line for line in recorded("loads-compiled")) == 2


def test_begins_with_the_engine() -> None:
    """Before the first line: engine start; the seconds are those in the phase."""
    progress = LoadProgress(10.0)
    assert progress.at(12.5).in_words() == "engine start"
    assert progress.at(12.5).seconds_in_phase == 2.5
    progress.take_line("phase: weights", 13.0)
    assert progress.at(14.0).seconds_in_phase == 1.0


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        (["phase: weights", "phase: weights"], [True, False]),
        (["phase: weights", "phase: import", "phase: weights"], [True, False, False]),
        (["s", "s"], [False, False]),
        (["1", "0", "2", "2", "1"], [True, False, True, False, False]),
    ],
)
def test_what_counts(lines: list[str], counts: list[bool]) -> None:
    """A new phase and a higher per cent; nothing that was there before, in whatever order."""
    progress = LoadProgress(0.0)
    bars = {str(n): f"Loading safetensors checkpoint shards:  {n}0% Completed | {n}/9 [" for n in range(10)}
    for second, (line, is_progress) in enumerate(zip(lines, counts, strict=True), start=1):
        before = progress.stalled_seconds(second)
        assert progress.take_line(bars.get(line, line), second) is is_progress
        assert progress.stalled_seconds(second) == (0.0 if is_progress else before)


def test_bytes_count() -> None:
    """A megabyte now and then does, a trickle from our own probes does not."""
    progress = LoadProgress(0.0)
    for second in range(1, 300):
        progress.take_use(second * 1000, 0.0, second)
    assert progress.stalled_seconds(300) == 300
    progress.take_use(READ_BYTES + 300_000, 0.0, 301)
    assert progress.stalled_seconds(301) == 0
    progress.take_use(2 * READ_BYTES, 0.0, 302)
    assert progress.stalled_seconds(302) == 1


@pytest.mark.parametrize("phase", LoadPhase)
def test_computing_counts_in_some_phases(phase: LoadPhase) -> None:
    """CPU time is progress where a worker computes in silence, and nowhere else: waiting ones spin."""
    line_of = {reading.phase: line for line, reading in LINES if reading}
    progress = LoadProgress(0.0)
    progress.take_line(line_of[phase], 1.0)
    progress.take_use(0, 0.5, 2.0)
    progress.take_use(0, 1.6, 3.0)
    assert (progress.stalled_seconds(3.0) == 0) is (phase in COMPUTING)
