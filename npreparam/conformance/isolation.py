"""A target in a process of its own: whatever it does to that process, the judge goes on.

Questions travel as pickles, what comes back as text and numbers (`conformance.wire`), each after its length in 8 bytes, over two pipes of their
own; what the target prints goes nowhere. No reply in time, or the end of the process, becomes a reply of its own, and the next question finds a
new process. A process ends with its `Isolated`, closed or forgotten.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

from npreparam._errors import ArgumentError
from npreparam.conformance.case import Level
from npreparam.conformance.runner import LARGEST, Question, Reply, answer
from npreparam.conformance.target import Declaration, Target
from npreparam.conformance.wire import pack_hello, pack_refusal, pack_reply, unpack_hello, unpack_reply

HEADER = struct.Struct("<Q")
START_SECONDS = 180.0  # frameworks are slow to import
ENDING_SECONDS = 2.0  # for a process that has closed its pipes to end by itself
PIECE = 2**20


class _TooLateError(Exception):
    pass


class _EndedError(Exception):
    pass


def _end(process: subprocess.Popen[bytes], *pipes: int) -> None:
    """End a child and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in pipes:
        os.close(pipe)


class Isolated:
    """Asks a child process, which imports the target by its name; restarted after a crash or a time-out.

    `seconds` is the time limit of one call, None for the declared one. Raises ArgumentError where the target cannot be imported.
    """

    def __init__(self, spec: str, seconds: float | None = None) -> None:
        self.spec, self._process, self._lock = spec, None, threading.Lock()
        self._start()
        self.seconds = self.declaration.seconds if seconds is None else seconds

    def ask(self, question: Question) -> Reply:
        """The reply to one question, or CRASH or TIMEOUT; questions of several threads wait for each other."""
        with self._lock:
            return self._ask(question)

    def _ask(self, question: Question) -> Reply:
        try:
            if self._process is None:
                self._start()
            self._send(question, time.monotonic() + self.seconds)
            return unpack_reply(self._receive(time.monotonic() + self.seconds))
        except _TooLateError:
            self.close()
            return Reply(level=Level.TIMEOUT, explanation=f"no answer within {self.seconds:g} s")
        except _EndedError:
            return Reply(level=Level.CRASH, explanation=f"the process ended: {self._epitaph()}")
        except ArgumentError as error:
            return Reply(level=Level.CRASH, explanation=f"cannot be started again: {error}")
        except ValueError as error:
            self.close()
            return Reply(level=Level.CRASH, explanation=f"writes into the judge's pipe: {error}")

    def close(self) -> None:
        """End the child and all that it started."""
        if self._process is not None:
            self._process = None
            self._finish()

    def _start(self) -> None:
        child_from, self._to = os.pipe()
        self._from, child_to = os.pipe()
        command = [sys.executable, "-c", "from npreparam.conformance.isolation import serve; serve()", str(child_from), str(child_to)]
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         pass_fds=(child_from, child_to), start_new_session=True, env={**os.environ, "PYTHONPATH": paths})
        self._finish = weakref.finalize(self, _end, self._process, self._to, self._from)
        os.close(child_from)
        os.close(child_to)
        os.set_blocking(self._to, False)
        try:
            deadline = time.monotonic() + START_SECONDS
            self._send(self.spec, deadline)
            hello = unpack_hello(self._receive(deadline))
        except _TooLateError:
            self.close()
            raise ArgumentError(f"`target` (={self.spec!r}) was not imported within {START_SECONDS:g} s") from None
        except _EndedError:
            raise ArgumentError(f"`target` (={self.spec!r}) ends the process when it is imported: {self._epitaph()}") from None
        except ValueError as error:
            self.close()
            raise ArgumentError(f"`target` (={self.spec!r}) writes into the judge's pipe when it is imported: {error}") from None
        if isinstance(hello, str):
            self.close()
            raise ArgumentError(hello)
        self.declaration: Declaration
        self.declaration, self.offers = hello

    def _epitaph(self) -> str:
        """How the child ended."""
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)  # its pipe is closed, so it is ending by itself, and its own status is to be told
        self.close()  # its children, if any, are not
        code = process.returncode
        return signal.Signals(-code).name if code < 0 and -code in iter(signal.Signals) else f"exit status {code}"

    def _send(self, message: Any, deadline: float) -> None:
        payload = pickle.dumps(message, protocol=5)
        view = memoryview(HEADER.pack(len(payload)) + payload)
        while view:
            if not select.select([], [self._to], [], max(0.0, deadline - time.monotonic()))[1]:
                raise _TooLateError
            try:
                view = view[os.write(self._to, view[:PIECE]):]
            except BrokenPipeError:
                raise _EndedError from None

    def _receive(self, deadline: float) -> bytes:
        (length,) = HEADER.unpack(self._read(HEADER.size, deadline))
        if length > 4 * LARGEST:
            raise ValueError(f"a message of {length} bytes")
        return self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytes:
        found = bytearray()
        while len(found) < length:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _TooLateError
            piece = os.read(self._from, min(PIECE, length - len(found)))
            if not piece:
                raise _EndedError
            found += piece
        return bytes(found)


def serve() -> None:
    """The child: import the target named by the first message, then answer questions until the pipe is closed."""
    source, sink = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[1:3], ("rb", "wb"), strict=True))
    spec = _next(source)
    try:
        target = Target.of(spec)
        hello = pack_hello(target.declaration, target.offers())
    except Exception as error:
        _reply(sink, pack_refusal(f"{error}" if isinstance(error, ArgumentError) else
                                  f"`target` (={spec!r}) cannot be imported: {type(error).__name__}: {error}"))
        return
    _reply(sink, hello)
    while (question := _next(source)) is not None:
        _reply(sink, pack_reply(answer(target, question)))


def _next(source: Any) -> Any:
    header = source.read(HEADER.size)
    return pickle.loads(source.read(HEADER.unpack(header)[0])) if len(header) == HEADER.size else None


def _reply(sink: Any, payload: bytes) -> None:
    sink.write(HEADER.pack(len(payload)) + payload)
    sink.flush()
