/**
 * What a guest makes its patch with: its own git and a shell. The user's index there is left alone: changes are added to a copy of it, beside it on
 * the VM's disk, since a folder in memory may be too small for it.
 */
export const exportFormats = ["diff", "commits"] as const;
export type ExportFormat = (typeof exportFormats)[number];

/** Exit statuses of the script, for what it cannot do. */
export const exportStatus = { noGit: 90, noRepository: 91, noBase: 92 } as const;

/** A line of stderr: files went on changing while they were read, so that the diff is of no single moment. */
export const UNSETTLED = "banger: unsettled";

/** Of a guest's settings none decides how the patch looks. */
const plain =
  "--binary --full-index --no-color --no-ext-diff --no-textconv --no-renames --submodule=short -U3 --inter-hunk-context=0";

/**
 * $1 folder, $2 base or empty, $3 format. Of commits the last line of stderr says how many changes are in none, and how many merges there are, which have
 * no patch. A diff has the work in submodules that were brought along too, under their folders.
 * Without a base: the state that was brought in, for a diff; the commit that was, for commits.
 */
const script = `
command -v git >/dev/null || exit ${exportStatus.noGit}
cd "$1" || exit ${exportStatus.noRepository}
export GIT_OPTIONAL_LOCKS=0
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c diff.orderFile=/dev/null -c core.quotePath=true -c diff.suppressBlankEmpty=false "$@"; }
dir=$(git rev-parse --absolute-git-dir 2>/dev/null) || exit ${exportStatus.noRepository}
base=$(git rev-parse --verify --quiet "\${2:-refs/banger/base}^{commit}") || exit ${exportStatus.noBase}
if [ "$3" = commits ]; then
  if [ -z "$2" ] && [ "$(git show --no-patch --format=%ae "$base")" = banger@localhost ]; then
    base=$(git rev-parse --verify --quiet "$base^") || base=
  fi
  open=$(git status --porcelain | wc -l)
  # Named once: somebody may commit meanwhile.
  head=$(git rev-parse --verify --quiet HEAD) || { echo "$open 0" >&2; exit 0; }
  if [ -n "$base" ]; then set -- "$base..$head"; else set -- "$head"; fi
  echo "$open $(git rev-list --merges --count "$@")" >&2
  [ -n "$base" ] || set -- --root "$head"
  exec env GIT_CONFIG_COUNT=0 git -c core.quotePath=true -c format.signature= format-patch --stdout --no-signature --no-cover-letter --no-attach --no-thread ${plain} --src-prefix=a/ --dst-prefix=b/ "$@"
fi
take() { git -c core.safecrlf=false -c advice.addEmbeddedRepo=false -c core.fsync=none -c core.looseCompression=0 add --all .; }
# $1 what stands before each name, $2 base
one() (
  dir=$(git rev-parse --absolute-git-dir) || exit 1
  own=$(mktemp -d "$dir/banger-export.XXXXXX") || exit 1
  trap 'rm -rf "$own"' EXIT
  trap 'exit 1' HUP INT TERM
  if [ -f "$dir/index" ]; then cp -p "$dir/index" "$own/index"; fi
  export GIT_INDEX_FILE="$own/index"
  # What is only looked at goes again, and need neither be packed tight nor outlast a power cut.
  if [ -d "$dir/objects" ]; then
    mkdir -p "$own/objects/info" && echo ../../objects >"$own/objects/info/alternates" || exit 1
    export GIT_OBJECT_DIRECTORY="$own/objects"
  fi
  # What git was told not to look at is looked at.
  if git ls-files -v | grep -q '^[a-z]'; then
    git ls-files -v -z | tr '\\n\\0' '\\0\\n' | sed -n 's/^[a-z] //p' | tr '\\n\\0' '\\0\\n' | git update-index -z --no-assume-unchanged --stdin
  fi
  # Twice the same: so it stood between the two looks. An index as old as the look before makes git compare the contents of what has changed since, whatever
  # its time and size say. What goes or shrinks while it is read makes git give up: somebody works there.
  tree= before=
  for look in 1 2 3 4 5; do
    : >"$own/start" || exit 1
    take 2>"$own/why" || continue
    before=$tree
    tree=$(git write-tree) || exit 1
    [ "$tree" != "$before" ] || break
    touch -r "$own/start" "$own/index"
  done
  [ -n "$tree" ] || { cat "$own/why" >&2; exit 1; }
  [ "$tree" = "$before" ] || echo "${UNSETTLED}" >&2
  git diff-tree -r -p ${plain} --src-prefix="a/$1" --dst-prefix="b/$1" "$2" "$tree" || exit 1
  unset GIT_INDEX_FILE GIT_OBJECT_DIRECTORY
  # A name that git puts in quotes is left out: a shell could not be told of it.
  [ -f .gitmodules ] || exit 0
  git ls-files --stage | sed -n '/\t"/d; s/^160000 [0-9a-f]* 0\t//p' | while IFS= read -r inner; do
    [ -e "$inner/.git" ] || continue
    below=$(cd "$inner" && git rev-parse --verify --quiet "refs/banger/base^{commit}") || continue
    (cd "$inner" && one "$1$inner/" "$below") || exit 1
  done
)
one "" "$base"
`;

/** The program that writes the patch to stdout, for a guest or any folder. @param base a commit of the guest's */
export const exportProgram = (path: string, base: string | undefined, format: ExportFormat): [string, ...string[]] => [
  "sh",
  "-c",
  script,
  "sh",
  path,
  base ?? "",
  format,
];
