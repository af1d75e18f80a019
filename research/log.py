"""What a run tells while it goes: metrics.jsonl, TensorBoard, and a bar or plain lines on stderr."""

import contextlib
import json
import math
import socket
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from research import runs
from research.stderr import Stderr


class Log:
    """Rows of metrics go to the files; the newest numbers go to whoever watches."""

    def __init__(self, folder, step, total, batch_size, rows="", stream=None, label=""):
        """Continues the log at `step`, with the `rows` of metrics.jsonl up to it. Lines start with the label."""
        self.path, self.total, self.batch_size, self.shown = folder / "metrics.jsonl", total, batch_size, 0.0
        stream = stream or sys.stderr
        self.stream, self.label = stream if isinstance(stream, Stderr) else Stderr(stream), label
        self.lines = rows.splitlines(keepends=True)
        self.rate = 0.0  # examples a second, without the time to compile
        self.bar = None
        if self.stream.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(file=self.stream.reader), transient=False)
            self.bar.start()
            self.task = self.bar.add_task("training", total=total, completed=step, text="")
        self.tensorboard = _Tensorboard(folder / "tensorboard", step, self.say)

    def row(self, step, split, values):
        """One row: each (step, split) once."""
        self.lines.append(json.dumps({"step": step, "split": split, **values}) + "\n")
        with self.path.open("a") as file:
            file.write(self.lines[-1])
        from tensorboardX import summary

        self.tensorboard.write(step, *(summary.scalar(f"{split}/{name}", value) for name, value in values.items()))
        if split != "train":
            self.say(f"step {step}  {split}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        else:
            self.progress(step, values)

    def rows(self):
        """Returns the text of metrics.jsonl; rewrites the file if another process has changed it."""
        text = "".join(self.lines)
        try:
            same = self.path.read_bytes() == text.encode()
        except OSError:
            same = False
        if not same:
            runs.write_text(self.path, text)
            self.say(f"{self.path}: was changed by another process; its rows were restored")
        return text

    def go_back(self, step, rows):
        """Returns to an earlier step, with the `rows` of metrics.jsonl up to it."""
        runs.write_text(self.path, rows)
        self.lines = rows.splitlines(keepends=True)
        self.tensorboard.close()
        self.tensorboard = _Tensorboard(self.path.parent / "tensorboard", step, self.say)

    def progress(self, step, values):
        """Step, loss, examples a second and time left: on a bar at once, in plain lines once in five seconds."""
        text = f"loss {values.get('loss', math.nan):.4f}  {self.rate:,.0f} examples/s"
        if self.bar:
            self.bar.update(self.task, completed=step, text=text)
        if step == self.total or time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            left = int((self.total - step) * self.batch_size / self.rate) if self.rate else 0
            line = f"step {step}/{self.total}  {text}" + (f"  {left // 60}:{left % 60:02d} left" if left else "")
            self.stream.keep(f"{line}\n") if self.bar else self.say(line)

    def say(self, text):
        if self.bar:
            self.bar.console.print(text, highlight=False)
            self.stream.keep(f"{text}\n")
        else:
            print(f"{self.label}{text}", file=self.stream)

    def code(self, name, text):
        """Writes preformatted text to TensorBoard."""
        from tensorboardX import summary

        lines = "\n".join(f"    {line}" for line in text.splitlines())  # four spaces: Markdown's code
        self.tensorboard.write(0, summary.text(name, lines))

    def image(self, name, image):
        """uint8[H, W, 3]."""
        from tensorboardX import summary

        self.tensorboard.write(0, summary.image(name, image, dataformats="HWC"))

    def close(self):
        if self.bar:
            self.bar.stop()
        self.tensorboard.close()


class _Tensorboard:
    """An event file, written and flushed by whoever logs: tensorboardX's own writer hands events to a thread, which
    loses them where the process is killed, and holds the process for ever where the disk is full.

    It is for the eye, metrics.jsonl is the record: what cannot be written here is said once, and stops nothing.
    """

    def __init__(self, folder, step, say):
        """Of a run that goes on at `step`: what an older file has beyond it is no longer shown."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        now = time.time_ns()  # sorted by name, and two starts within a second have two
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{now % 10**9:09d}"
        self.folder, self.say, self.records = folder, say, None
        with self._allowed_to_fail():
            folder.mkdir(exist_ok=True)
            self.records = RecordWriter(str(folder / name))
            self._append(Event(file_version="brain.Event:2"))
            if step:
                self._append(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
            self.records.flush()

    def write(self, step, *summaries):
        from tensorboardX.proto.event_pb2 import Event

        if self.records is None:
            return
        with self._allowed_to_fail():
            for summary in summaries:
                self._append(Event(step=step, summary=summary))
            self.records.flush()

    def _append(self, event):
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())

    @contextlib.contextmanager
    def _allowed_to_fail(self):
        try:
            yield
        except OSError as error:
            records, self.records = self.records, None
            with contextlib.suppress(OSError):  # closing writes what is left
                if records is not None:
                    records.close()
            self.say(f"{self.folder}: cannot be written: {error.strerror}; the run goes on without TensorBoard")

    def close(self):
        if self.records is not None:
            with self._allowed_to_fail():
                self.records.close()
