"""`openclaw completion`: shell completion scripts."""

from __future__ import annotations

import click

#: Readline breaks words at colons and other characters of session keys (COMP_WORDBREAKS). The words of the line are put
#: together again; bash replaces the part in $2 alone, so what stands before it is taken away from what is offered. That
#: is quoted: keys of sessions are chosen by callers. Inside quotes only what needs no quoting is offered.
_BASH = r"""
_openclaw_completion() {
    local IFS=$'\n' rest=$COMP_LINE word gap type value current prefix="" words=()
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        gap=${rest%%[![:space:]]*}
        rest=${rest#"$gap"}
        rest=${rest#"$word"}
        if [[ -z $gap && ${#words[@]} -gt 0 && -n $word ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
    done
    current=${words[${#words[@]}-1]}
    [[ $current == --*=* ]] && current=${current#*=}
    prefix=${current%"$2"}
    while IFS=, read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain)
                value=${value#"$prefix"}
                if [[ $current != [\"\']* ]]; then
                    COMPREPLY+=("$(printf %q "$value")")
                elif [[ $value != *[^A-Za-z0-9_:@=.,+/~%-]* ]]; then
                    COMPREPLY+=("$value")
                fi ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) _OPENCLAW_COMPLETE=bash_complete "$1")
}
complete -o nosort -F _openclaw_completion openclaw"""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: add to ~/.bashrc:   eval "$(openclaw completion bash)"
    zsh:  add to ~/.zshrc:    eval "$(openclaw completion zsh)"
    fish: openclaw completion fish > ~/.config/fish/completions/openclaw.fish
    """  # noqa: D301  # click's marker for unwrapped lines
    if shell == "bash":
        click.echo(_BASH.strip())
        return
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"There is no completion for {shell}.")
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "openclaw", "_OPENCLAW_COMPLETE").source())
