"""Tasks by name: TASKS[name](spec, **arguments) -> Task. A new one is a file and a line here."""

from research.tasks.classify_images import classify_images

TASKS = {"classify_images": classify_images}
