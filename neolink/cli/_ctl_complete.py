# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion of `neolink ctl`: scripts for bash, zsh and fish, made from the table of commands.

    eval "$(neolink ctl --completion bash)"             # in ~/.bashrc; zsh: the same with zsh
    neolink ctl --completion fish | source              # in ~/.config/fish/config.fish

One word of context decides: what may follow "print", "set", "set cluster", …, and what may begin a command.
"""
from __future__ import annotations

from neolink.cli._ctl_commands import COMMANDS
from neolink.proto import ClusterStates, NodeTypes

OPTIONS = ["-a", "--address", "--embedded", "--json", "--lines", "--timeout", "--tls", "--watch", "--every", "--count",
           "--wait", "--exit-code", "--completion", "--help"]
SHELLS = ("bash", "zsh", "fish")

_BASH = '''\
_neolink_ctl() {
    local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]} words
    [ "${COMP_WORDS[1]}" = ctl ] || { COMPREPLY=($(compgen -W "demo ping ctl" -- "$word")); return; }
    case $last in
%s
        *) words="%s" ;;
    esac
    case $word in -*) words="%s" ;; esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _neolink_ctl neolink
'''

# zsh runs functions for bash, once its own completion is set up.
_ZSH = """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit -u; }
autoload -U +X bashcompinit && bashcompinit
"""


def following() -> dict[str, list[str]]:
    """The words that may follow a word."""
    states = [state.name.lower() for state in ClusterStates]
    found = {"cluster": states, "wait": states, "node": [kind.name.lower() for kind in NodeTypes],
             "add": ["all"], "tweak": ["-n"], "prune_orphan": ["0", "1"], "--completion": list(SHELLS)}
    for words in COMMANDS:
        if len(words) == 2:
            found.setdefault(words[0], []).append(words[1])
    return found


def script(shell: str) -> str:
    """The completion script for a shell."""
    first = sorted({words[0] for words in COMMANDS})
    if shell == "fish":
        lines = ["complete -c neolink -n 'not __fish_seen_subcommand_from ctl' -f -a 'demo ping ctl'"]
        lines += [f"complete -c neolink -n '__fish_seen_subcommand_from ctl; and test "
                  f"(commandline -opc)[-1] = {word}' -f -a '{' '.join(words)}'" for word, words in following().items()]
        lines.append(f"complete -c neolink -n 'test (commandline -opc)[-1] = ctl' -f -a '{' '.join(first)}'")
        lines += [f"complete -c neolink -n '__fish_seen_subcommand_from ctl' -l {option[2:]}"
                  for option in OPTIONS if option.startswith("--")]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'        {word}) words="{" ".join(words)}" ;;' for word, words in following().items())
    bash = _BASH % (cases, " ".join(first), " ".join(OPTIONS))
    return bash if shell == "bash" else _ZSH + bash
