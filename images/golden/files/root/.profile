# What mise has installed, without its hook in every prompt.
PATH="$HOME/.local/share/mise/shims:$PATH"
if [ -n "${BASH_VERSION-}" ] && [ -r ~/.bashrc ]; then
  . ~/.bashrc
fi
