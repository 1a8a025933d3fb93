import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from toolkit import quiet

NOISE = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    "I0000 00:00:1795262410.686643   26255 port.cc:153] oneDNN custom operations are on.\n",
    "W0000 00:00:1795262410.686643   26255 cpu_allocator_impl.cc:84] Allocation exceeds 10%.\n",
    "To enable the following instructions: AVX2, rebuild TensorFlow with the appropriate flags.\n",
    "E0000 00:00:1795262414.594708 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n",
    "E0000 00:00:1795262414.5 mkl.h:201] oneDNN supports DT_BOOL only on platforms with AVX-512.\n",
    "E0000 00:00:1795275991.2 text_format.cc:378] Error parsing text-format "
    "tensorflow.XlaSerializedCacheEntry: 2:1: Expected identifier, got: 6\n",
    "E0000 00:00:1795275991.2 cpu_aot_loader.cc:220] Loading XLA:CPU AOT result. Target machine feature "
    "+prefer-no-gather is not  supported on the host machine.\n",
]
NEWS = [
    "E0000 00:00:1795262414.594708   26255 bfc_allocator.cc:50] out of memory\n",
    "F0000 00:00:1795262414.594708   26255 check.cc:50] Check failed: oneDNN\n",
    "E0000 00:00:1795275991.2 cpu_aot_loader.cc:220] Loading XLA:CPU AOT result. Target machine feature "
    "+avx512f is not  supported on the host machine.\n",
    "Traceback (most recent call last):\n",
    "ValueError: W0000 is no number\n",
    "a line that is",
    " written in two parts, then W0000 \n",
    "\n",
]


def run(code, **variables):
    code = f"import os, sys, time\nfrom toolkit import quiet\nquiet.start()\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)


def test_what_is_harmless_is_hidden_at_any_time_and_nothing_else():
    lines = [*NOISE[:3], *NEWS[:2], *NOISE[3:], *NEWS[2:], *NOISE]
    code = f"for line in {lines!r}: os.write(2, line.encode()); time.sleep(0.02)"
    assert run(code).stderr == "".join(NEWS)


def test_children_are_filtered_too():
    child = f"import os; os.write(2, {(NOISE[1] + NEWS[0]).encode()!r})"
    code = f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])"
    assert run(code).stderr == NEWS[0]


def test_the_last_word_of_a_crash_comes_through():
    result = run(f"os.write(2, {(NOISE[0] + NEWS[1]).encode()!r}); os.abort()")
    assert result.returncode != 0
    assert result.stderr == NEWS[1]


def test_an_error_of_python_comes_through():
    result = run("raise SystemExit('no such thing')")
    assert (result.returncode, result.stderr) == (1, "no such thing\n")


def test_who_asks_for_warnings_gets_them():
    code = f"os.write(2, {NOISE[2].encode()!r})"
    assert run(code, TF_CPP_MIN_LOG_LEVEL="1").stderr == NOISE[2]
    assert run(code, TF_CPP_MIN_LOG_LEVEL="2").stderr == ""


@given(st.lists(st.sampled_from(NEWS + NOISE), max_size=8), st.integers(1, 7))
def test_no_chunk_of_news_is_lost(lines, size):
    """Whatever the pieces that it comes in; noise that comes in pieces may be seen."""
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines).encode()
    source, into = os.pipe()
    out, target = os.pipe()
    wanted = [line for line in text.splitlines() if not quiet.HARMLESS.match(line)]
    pieces = iter([text[i : i + size] for i in range(0, len(text), size)] + [b""])
    real = os.read
    quiet.os = type("Pieces", (), {"read": lambda *_: next(pieces), "write": os.write})
    try:
        quiet.sieve(source, target)
    finally:
        quiet.os = os
        for descriptor in (source, into, target):
            os.close(descriptor)
    seen = real(out, 1 << 16).splitlines() if text else []
    os.close(out)
    for line in wanted:
        assert line in seen
