"""What a run tells while it goes: metrics.jsonl, TensorBoard, and a bar or plain lines on stderr."""

import json
import math
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def counted(items, total, what, stream=None):
    """The items, and on stderr how many there were and the time left: at most a line in two seconds, none for few."""
    stream, began, shown = stream or sys.stderr, time.monotonic(), time.monotonic()
    for i, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now - shown > 2:
            shown, left = now, int((now - began) / (i + 1) * (total - i - 1))
            print(f"{i + 1}/{total} {what}  {left // 60}:{left % 60:02d} left", file=stream, flush=True)


class Log:
    """Rows of metrics go to the files; the newest numbers go to whoever watches."""

    def __init__(self, folder, rows, step, total, batch_size, stream=None):
        """Continues a log of these rows at `step`: those beyond it are cut, as they will be made again."""
        from tensorboardX import SummaryWriter

        rows = [row for row in rows if row["step"] <= step and row["split"] != "test"]
        self.path, self.total, self.batch_size, self.shown = folder / "metrics.jsonl", total, batch_size, 0.0
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self.stream = stream or sys.stderr
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
            self.bar = Progress(*columns, console=Console(file=self.stream), transient=False)
            self.bar.start()
            self.task = self.bar.add_task("training", total=total, completed=step, text="")

    def row(self, step, split, values):
        """One row: each (step, split) once."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        for name, value in values.items():
            self.tensorboard.add_scalar(f"{split}/{name}", value, step)
        if split != "train":
            self.say(f"step {step}  {split}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        else:
            self.progress(step, values)

    def progress(self, step, values):
        """Step, loss, examples a second and time left: on a bar at once, in plain lines once in five seconds."""
        text = f"loss {values.get('loss', math.nan):.4f}  {self.rate:,.0f} examples/s"
        if self.bar:
            self.bar.update(self.task, completed=step, text=text)
        elif step == self.total or time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            left = int((self.total - step) * self.batch_size / self.rate) if self.rate else 0
            self.say(f"step {step}/{self.total}  {text}" + (f"  {left // 60}:{left % 60:02d} left" if left else ""))

    def say(self, text):
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def text(self, name, content):
        self.tensorboard.add_text(name, content, 0)

    def image(self, name, image):
        """uint8[H, W, 3]."""
        self.tensorboard.add_image(name, image, 0, dataformats="HWC")

    def close(self):
        if self.bar:
            self.bar.stop()
        self.tensorboard.close()
