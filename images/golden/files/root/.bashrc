# ~/.bashrc of root in a banger VM: for interactive shells only.
case $- in
  *i*) ;;
  *) return ;;
esac

HISTCONTROL=ignoreboth
HISTSIZE=10000
HISTFILESIZE=20000
shopt -s histappend checkwinsize

if [ "${NO_COLOR-}" = "" ] && [ "${TERM-dumb}" != dumb ]; then
  PS1='\[\e[1;32m\]\u@\h\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ '
  alias ls='ls --color=auto' grep='grep --color=auto'
else
  PS1='\u@\h:\w\$ '
fi
alias ll='ls -l' la='ls -la'

if [ -r /usr/share/bash-completion/bash_completion ]; then
  . /usr/share/bash-completion/bash_completion
fi
