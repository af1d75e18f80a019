"""Where a folder in Hugging Face's layout is: on this machine, or in their hub's cache, filled where it is online."""

import pathlib

from research.errors import UserError

PREFIX = "hf:"
FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "vocab.json", "vocab.txt", "merges.txt",
         "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")  # fmt: skip


def find(source, field):
    """Returns the folder that "hf:FOLDER_OR_NAME" means; a folder that exists is preferred to a name of the hub.

    Args:
        source: the name of a repository on the hub may end in @REVISION: a branch, tag or commit.
        field: what an error calls it.

    Raises:
        UserError: 3, where it is neither.
    """
    name = source.removeprefix(PREFIX)
    folder = pathlib.Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    name, at, revision = name.partition("@")
    if not name or name[0] in "./~" or name.count("/") > 1 or bool(at) != bool(revision):  # as gpt2, or owner/name
        raise UserError(3, f"{field}: {source}: there is no folder {name + at + revision!r}")
    try:
        import huggingface_hub
    except ImportError:
        reason = "huggingface_hub, which would fetch it, is not installed"
    else:
        try:
            fetched = huggingface_hub.snapshot_download(
                name, revision=revision or None, allow_patterns=FILES, etag_timeout=3
            )
            return pathlib.Path(fetched)
        except Exception as error:  # whatever HTTP, the disk or a name that is none make it raise
            reason = f"huggingface_hub could not fetch it ({type(error).__name__})"
    raise UserError(
        3,
        f"{field}: {source}: there is no folder {name}{at}{revision}, and {reason}; put its config.json, "
        "model.safetensors and tokenizer.json into a folder, and give hf:FOLDER",
    )
