"""`openclaw completion`: shell completion scripts."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: add to ~/.bashrc:   eval "$(openclaw completion bash)"
    zsh:  add to ~/.zshrc:    eval "$(openclaw completion zsh)"
    fish: openclaw completion fish > ~/.config/fish/completions/openclaw.fish
    """  # noqa: D301  # click's marker for unwrapped lines
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"There is no completion for {shell}.")
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "openclaw", "_OPENCLAW_COMPLETE").source())
