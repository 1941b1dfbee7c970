# Bash completion for cortado. Verbs and options are read from --help, so they are always the program's own.
_cortado() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local verbs options choices
    if [ "$COMP_CWORD" -eq 1 ]; then
        verbs=$("$program" --help 2>/dev/null | sed -n '/^verbs:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$verbs --help --version" -- "$current")
        return
    fi
    options=$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null)
    case $current in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$(grep -oE '^  (-[a-z], )?--[a-z-]+' <<<"$options" | grep -oE -- '--[a-z-]+')" -- "$current")
        return
        ;;
    esac
    # After an option whose values are listed (a|b|c), complete those; else file names.
    choices=$(sed -nE "s/^  (-[a-z], )?$previous ([a-z0-9+-]+(\|[a-z0-9+-]+)+).*/\2/p" <<<"$options" | tr '|' ' ')
    if [ -n "$choices" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -F _cortado cortado
