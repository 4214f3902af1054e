#!/bin/sh
# Starts the program of the same name in build/lib with the Node.js that the build chose. Builtins only on the usual way:
# every command pays for this file.
self=$0
if [ -L "$self" ]; then
  self=$(readlink -f -- "$self")
fi
name=${self##*/}
build=${self%/bin/"$name"}
# Called by a path that does not end in /bin/NAME, or through a link to the folder: ask where it really is.
if [ ! -f "$build/lib/$name.cjs" ]; then
  case $self in
    */*) folder=${self%/*} ;;
    *) folder=. ;;
  esac
  build=$(cd "$folder" && cd -P .. && pwd -P)
fi
if [ ! -x "$build/lib/node" ]; then
  echo "banger: the Node.js that it was built with is gone ($build/lib/node)" >&2
  echo "hint: make -C '${build%/build}' build" >&2
  exit 1
fi
# The daemon waits and passes bytes on: measured, the optimizing compiler makes it no faster, and it and a large young generation cost a
# quarter of its memory. One malloc arena saves another 4 MiB after heavy copies; the daemon does not hand the setting on.
case $name in
  bangerd) MALLOC_ARENA_MAX=1 exec "$build/lib/node" --max-semi-space-size=1 --no-opt "$build/lib/$name.cjs" "$@" ;;
  *) exec "$build/lib/node" "$build/lib/$name.cjs" "$@" ;;
esac
