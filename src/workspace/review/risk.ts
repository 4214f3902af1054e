/** What of a guest's work deserves a second look, by name, kind and contents. */
import { badPath, linkInside } from "./places.ts";
import type { FileChange } from "./patch.ts";

/** In the order in which they are shown. */
export const risks = [
  "refused",
  "hook",
  "ci",
  "config",
  "script",
  "executable",
  "link",
  "submodule",
  "ignored",
  "lockfile",
  "hidden-text",
  "odd-name",
  "binary",
  "huge",
] as const;
export type Risk = (typeof risks)[number];

/** Each in a few words. */
export const riskText: Record<Risk, string> = {
  refused: "cannot be a file of this repository",
  hook: "git runs it, or obeys it",
  ci: "runs on the machines that build and release",
  config: "a tool or an editor runs what it says, often without asking",
  script: "is run as a program",
  executable: "becomes executable",
  link: "a link that leads out of the repository, or into its git folder",
  submodule: "another commit of a submodule: not a change of files, not applied",
  ignored: "git ignores it: no `git status` would show it",
  lockfile: "decides which packages are installed",
  "hidden-text": "has characters that are not seen, or turn the direction of text",
  "odd-name": "its name has control characters or is no text",
  binary: "no text that could be read",
  huge: "too long to be read",
};

/** More lines, or bytes, than a person reads. */
const HUGE = { lines: 2000, bytes: 512 * 1024 };

const hookNames =
  /^(?:applypatch-msg|pre-applypatch|post-applypatch|pre-commit|pre-merge-commit|prepare-commit-msg|commit-msg|post-commit|pre-rebase|post-checkout|post-merge|pre-push|pre-receive|update|post-receive|post-update|reference-transaction|push-to-checkout|pre-auto-gc|post-rewrite|post-index-change|proc-receive|sendemail-validate|fsmonitor-watchman)$/;

const byName: readonly (readonly [Risk, RegExp])[] = [
  // A folder with one may be a git folder by itself, whatever its name: git in it obeys its `config`.
  ["hook", /(?:^|\/)head$/],
  ["hook", /(?:^|\/)\.(?:husky|githooks|git-hooks)\//],
  [
    "hook",
    /(?:^|\/)(?:\.gitattributes|\.gitmodules|\.gitconfig|\.lfsconfig|\.pre-commit-config\.ya?ml|\.?lefthook[^/]*\.(?:ya?ml|toml|json)|\.lintstagedrc[^/]*|\.huskyrc[^/]*)$/,
  ],
  [
    "ci",
    /^\.(?:github\/(?:workflows|actions)|gitea|forgejo|circleci|buildkite|woodpecker|ci|gitlab|teamcity|tekton|semaphore|azure-pipelines|azuredevops|builds)\//,
  ],
  [
    "ci",
    /(?:^|\/)(?:jenkinsfile[^/]*|action\.ya?ml|\.gitlab-ci[^/]*|\.travis\.ya?ml|\.drone\.ya?ml|\.cirrus\.ya?ml|\.woodpecker\.ya?ml|azure-pipelines[^/]*|bitbucket-pipelines\.ya?ml|\.?appveyor\.ya?ml|cloudbuild\.ya?ml|buildspec\.ya?ml|\.build\.ya?ml)$/,
  ],
  ["config", /(?:^|\/)\.(?:vscode|idea|devcontainer|claude|cursor|mise|cargo|direnv|zed|helix|windsurf|ssh)\//],
  [
    "config",
    /(?:^|\/)(?:\.envrc|\.env|\.?mise[^/]*\.toml|\.tool-versions|\.nvmrc|\.npmrc|\.yarnrc[^/]*|\.pnpmfile\.c?js|\.bunfig\.toml|\.devcontainer\.json|\.mcp\.json|agents\.md|claude\.md|gemini\.md|copilot-instructions\.md|\.(?:cursor|windsurf|cline)rules|\.aider[^/]*|\.(?:bashrc|bash_profile|profile|zshrc|zshenv|inputrc|tmux\.conf)|\.editorconfig|\.vimrc|\.exrc|\.nvim\.lua|\.gdbinit|\.lldbinit|\.bazelrc|\.dir-locals\.el|pip\.conf|\.pypirc|\.netrc|[^/]*\.code-workspace)$/,
  ],
  [
    "script",
    /(?:^|\/)(?:(?:gnu)?makefile|[^/]*\.(?:sh|bash|zsh|fish|ksh|csh|ps1|bat|cmd|mk|just|gradle(?:\.kts)?)|justfile|rakefile|gemfile|vagrantfile|dockerfile[^/]*|containerfile[^/]*|[^/]*\.dockerfile|compose[^/]*\.ya?ml|docker-compose[^/]*\.ya?ml|package\.json|setup\.py|setup\.cfg|pyproject\.toml|noxfile\.py|tox\.ini|conftest\.py|sitecustomize\.py|usercustomize\.py|[^/]*\.pth|build\.rs|cmakelists\.txt|[^/]*\.cmake|configure(?:\.ac)?|taskfile[^/]*\.ya?ml|flake\.nix|shell\.nix|default\.nix|(?:webpack|vite|vitest|rollup|jest|babel|eslint|prettier|postcss|tailwind|next)[^/]*\.config\.[cm]?[jt]s)$/,
  ],
  [
    "lockfile",
    /(?:^|\/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?|deno\.lock|cargo\.lock|go\.sum|go\.mod|gemfile\.lock|poetry\.lock|uv\.lock|pdm\.lock|pipfile\.lock|requirements[^/]*\.txt|composer\.lock|flake\.lock|mise\.lock|packages\.lock\.json|gradle\.lockfile|podfile\.lock|mix\.lock|pubspec\.lock)$/,
  ],
];

/** What a name and modes alone tell. */
export type Named = { path: string; oldMode?: string | undefined; newMode?: string | undefined };

/** @param ignored git of the host ignores the path */
export const risksOfName = ({ path, oldMode, newMode }: Named, ignored: boolean): Set<Risk> => {
  const found = new Set<Risk>();
  if (badPath(path) !== undefined) found.add("refused");
  const lower = path.toLowerCase();
  for (const [risk, pattern] of byName) if (pattern.test(lower)) found.add(risk);
  const folders = lower.split("/");
  if (folders.includes("hooks") && hookNames.test(folders.at(-1) ?? "")) found.add("hook");
  if (newMode === "100755" && oldMode !== "100755") found.add("executable");
  if (oldMode === "160000" || newMode === "160000") found.add("submodule");
  if (ignored) found.add("ignored");
  if (isOdd(path)) found.add("odd-name");
  return found;
};

/** Of what is not seen as it is: controls, formats (direction, no width), line ends of Unicode's own. */
const UNSEEN = /[\p{Cc}\p{Cf}\u2028\u2029\ufffd]/u;

const isOdd = (path: string): boolean => UNSEEN.test(Buffer.from(path, "latin1").toString("utf8"));

/** Controls, direction of text, what has no width. Joiners make emoji of several, and soft hyphens words of two. */
const HIDDEN = /[^\P{Cc}\n\t\r\f]|(?!\u200d|\u00ad)\p{Cf}|[\u2028\u2029]/u;

/** @param line with its `+`; a mark of byte order at its start is what some editors write */
const hidesText = (line: string): boolean =>
  HIDDEN.test(
    Buffer.from(line, "latin1")
      .toString("utf8")
      .replace(/^\+\ufeff/, "+"),
  );

/** @returns what the contents add */
export const risksOfContent = (change: FileChange): Set<Risk> => {
  const found = new Set<Risk>();
  const { path, newMode, binary } = change;
  const added = change.hunks.flatMap(({ lines }) => lines.filter((line) => line.startsWith("+")));
  if (binary) {
    found.add("binary");
    if (binary.size > HUGE.bytes) found.add("huge");
  }
  const lines = change.hunks.reduce((sum, hunk) => sum + hunk.lines.length, 0);
  const bytes = added.reduce((sum, line) => sum + line.length, 0);
  if (lines > HUGE.lines || bytes > HUGE.bytes) found.add("huge");
  if (newMode === "120000") {
    const inside = linkInside(path, added.map((line) => line.slice(1)).join(""));
    if (inside === undefined || (inside !== "" && badPath(inside) !== undefined)) found.add("link");
  } else {
    if (added.some(hidesText)) found.add("hidden-text");
    if (change.hunks[0]?.newStart === 1 && added[0]?.startsWith("+#!")) found.add("script");
  }
  return found;
};
