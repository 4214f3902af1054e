/** What a shell loads. All knowledge is in the program, which the scripts ask: they need not be loaded again for a new one. */

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

const bash = `# bash completion of banger. Load it: source <(banger completion bash)
_banger() {
  local program=\${COMP_WORDS[0]} current=\${COMP_WORDS[COMP_CWORD]} how=""
  if [[ $program == "~/"* ]]; then program=$HOME/\${program#"~/"}; fi
  COMPREPLY=()
  {
    IFS= read -r how
    mapfile -t COMPREPLY
  } < <("$program" complete bash "$COMP_CWORD" -- "\${COMP_WORDS[@]}" 2>/dev/null)
  if [[ $how == *open* ]]; then compopt -o nospace; fi
  if [[ $how == *files* && \${#COMPREPLY[@]} -eq 0 ]]; then
    compopt +o nospace -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -F _banger banger
`;

const zsh = `#compdef banger
# zsh completion of banger. Load it: source <(banger completion zsh), after compinit
_banger() {
  local how line
  local -a answer candidates
  answer=("\${(@f)$("\${words[1]}" complete zsh $((CURRENT - 1)) -- "\${words[@]}" 2>/dev/null)}")
  how=\${answer[1]}
  for line in "\${(@)answer[2,-1]}"; do
    [[ -n $line ]] && candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  if [[ $how == *open* ]]; then
    (( \${#candidates} )) && _describe -V banger candidates -S ''
  else
    (( \${#candidates} )) && _describe -V banger candidates
  fi
  [[ $how == *files* ]] && _files
  return 0
}
if [[ $funcstack[1] == _banger ]]; then _banger "$@"; else compdef _banger banger; fi
`;

const fish = `# fish completion of banger. Load it: banger completion fish | source
function __banger_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer ($words[1] complete fish (math (count $words) - 1) -- $words 2>/dev/null)
    string join \\n -- $answer[2..-1]
    if string match -q '*files*' -- $answer[1]
        __fish_complete_path (commandline -ct)
    end
end
complete -c banger -f -a '(__banger_complete)'
`;

export const scripts: Record<Shell, string> = { bash, zsh, fish };
