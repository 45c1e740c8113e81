# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf push`: a fine-tuned or exported model to the Hub, with the code that loads it."""

import argparse
from pathlib import Path

from prithvi_hf.cli.common import Commands, add_command, import_quickly


_EPILOG = """examples:
  prithvi-hf push OUT --repo_id me/floods --private
  prithvi-hf push exported --repo_id me/floods-openvino

Run it again after a broken connection: files that have arrived are not sent again.
"""


def add_parser(commands: Commands) -> None:
    """Describe `push`."""
    text = "upload the folder of a fine-tuned or exported model to the Hub, with the code that loads it"
    add = add_command(commands, "push", text, epilog=_EPILOG).add_argument
    add("folder", metavar="FOLDER", help="output folder of finetune, pretrain or export")
    text = "repository, owner/name, made if there is none (default: the name of the folder, of the account logged in)"
    add("--repo_id", metavar="ID", help=text)
    add("--private", action="store_true", help="make a new repository private")
    add("--revision", metavar="BRANCH", help="branch to commit to, made if there is none (default: main)")
    add("--commit_message", metavar="TEXT", default="Upload model", help="of the commit (default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Upload a folder and print the address of the commit."""
    with import_quickly():
        from prithvi_hf.hub import push_folder_to_hub

    commit = push_folder_to_hub(
        options.folder,
        options.repo_id or Path(options.folder).resolve().name,
        commit_message=options.commit_message,
        private=options.private or None,
        revision=options.revision,
    )
    print(f"uploaded: {commit.commit_url}")
