/**
 * Tools that a repository pins, installed by mise in the guest and only there: a mise.toml is code of whoever wrote the repository. mise's own shims are
 * first on PATH in a workspace.
 */

/** Files that mise reads, below the folder they count for. */
const PINS =
  /^(?:\.?mise(?:\.local)?\.toml|mise\/config\.toml|\.mise\/config\.toml|\.config\/mise\.toml|\.config\/mise\/(?:config\.toml|conf\.d\/[^/]+\.toml)|\.tool-versions|\.nvmrc|\.node-version|\.python-versions?|\.ruby-version|\.go-version|go\.mod|rust-toolchain(?:\.toml)?|\.java-version|\.bun-version|\.deno-version|\.terraform-version|\.zig-version|\.swift-version)$/;

/** Of those files the ones that other tools have made theirs, by what mise calls the tools: it reads them when it is told. */
const READ_TOO = ["node", "python", "ruby", "go", "rust", "java", "bun", "deno", "terraform", "zig", "swift"];

/**
 * @param paths that travel
 * @param below the folder of the repository in which work begins; empty at its root
 * @returns those that pin tools there, or above it
 */
export const pinsIn = (paths: readonly string[], below: string): string[] => {
  const folders = ["", ...below.split("/").map((_, at, all) => `${all.slice(0, at + 1).join("/")}/`)].filter(
    (folder, at) => at === 0 || folder !== "/",
  );
  return paths.filter((path) =>
    folders.some((folder) => path.startsWith(folder) && PINS.test(path.slice(folder.length))),
  );
};

/** In the guest. */
export const toolsLog = (name: string): string => `/var/log/banger/tools-${name}.log`;

/**
 * $1 folder, $2 log, $3 `wait`, or `behind` to go on when the program has ended, $4 what mise installs: `none`, or `pins` and more tools, $5 a name
 * of all that is asked for; then lines for a shell. `LOG.status` has the exit status and that name once it is over.
 */
const script = `
folder=$1 log=$2 when=$3 tools=$4 key=$5
shift 5
mkdir -p "\${log%/*}" || exit 1
rm -f "$log.status"
install() {
  shift
  command -v mise >/dev/null || { echo "the image has no mise"; return 90; }
  config=$HOME/.config/mise/config.toml
  grep -qs idiomatic_version_file_enable_tools "$config" || mise settings set idiomatic_version_file_enable_tools ${READ_TOO.join(",")} || return
  grep -qsF "\\"$folder\\"" "$config" || mise settings add trusted_config_paths "$folder" || return
  mise install || return
  [ $# = 0 ] || mise use --global "$@"
}
work() {
  export MISE_YES=1 MISE_COLOR=0 CI=1
  cd "$folder" || return
  result=0
  [ "$tools" = none ] || install $tools || result=$?
  for line do
    sh -c "$line" || { result=$?; echo "status $result of: $line"; }
  done
  return $result
}
if [ "$when" = behind ]; then
  (trap '' HUP; work "$@" >"$log" 2>&1 </dev/null; echo "$? $key" >"$log.status") >/dev/null 2>&1 </dev/null &
  exit 0
fi
work "$@" >"$log" 2>&1 </dev/null
status=$?
echo "$status $key" >"$log.status"
[ $status = 0 ] && exit 0
tail -c 4096 "$log" >&2
exit $status
`;

export type SetUp = {
  /** In the guest. */
  path: string;
  log: string;
  behind: boolean;
  /** Whether mise installs what files of the repository pin. */
  pins: boolean;
  /** More for mise: `node@20`. */
  tools: readonly string[];
  /** Of what is asked for, to know it again. */
  key: string;
  /** For a shell there, one after the other, whatever becomes of those before. */
  commands: readonly string[];
};

export const setUpProgram = ({ path, log, behind, pins, tools, key, commands }: SetUp): string[] => {
  const wanted = pins || tools.length > 0 ? ["pins", ...tools].join(" ") : "none";
  return ["sh", "-c", script, "sh", path, log, behind ? "behind" : "wait", wanted, key, ...commands];
};

/** What `LOG.status` has, or nothing. */
export const lastStatusProgram = (log: string): string[] => ["sh", "-c", 'cat "$1.status" 2>/dev/null || :', "sh", log];

/** What `LOG.status` has where all went well. */
export const wentWell = (key: string): string => `0 ${key}`;

/** What went wrong, in mise's words. */
export const failureIn = (said: string): string => {
  const lines = said.split("\n").map((line) => line.trim());
  const error = lines.find((line) => line.startsWith("mise ERROR"))?.slice("mise ERROR".length);
  return (error ?? lines.findLast((line) => line !== "") ?? "mise failed").trim().slice(0, 200);
};
