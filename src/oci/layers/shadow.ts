/**
 * Decides, layer by layer **from the top**, which entries of an image's layers are seen in the end: each file that stays is then written
 * once, as it comes, and what is hidden costs no more than reading past it.
 *
 * A layer's whiteouts hide what lies in the layers below it, never what is in it. What cannot be told from above is left to plan.ts,
 * which reads the headers of all layers first: an entry twice in a layer, a parent that is a symlink, a hard link to a file that is
 * hidden or in another layer.
 */
import type { LayerEntry } from "./entry.ts";

/** Thrown when the top-down order cannot tell. */
export class NeedsPlan extends Error {
  override readonly name = "NeedsPlan";
}

type Node = {
  children: Map<string, Node> | undefined;
  /** What an entry made of it; `open`: nothing yet. */
  kind: "open" | "directory" | "symlink" | "other";
  /** Layer of that entry. */
  layer: number;
  /** What lies in layers below this one is hidden, here and underneath. */
  hiddenBelow: number;
  /** The same, underneath only. */
  childrenHiddenBelow: number;
  /** Something underneath stays: whatever a lower layer has here, it is a folder. */
  holds: boolean;
  /** A layer went through this name without having it as a folder itself: were it a symlink below, the way would have led elsewhere. */
  passedBy: number;
  /** The lowest layers so far that have it as a folder, and as a symlink, hidden or not. */
  folderIn: number;
  symlinkIn: number;
};

const newNode = (): Node => ({
  children: undefined,
  kind: "open",
  layer: -1,
  hiddenBelow: 0,
  childrenHiddenBelow: 0,
  holds: false,
  passedBy: -1,
  folderIn: -1,
  symlinkIn: -1,
});

export type Verdict = "keep" | "hidden";

export type ShadowTree = {
  /**
   * Layers in descending order, each layer's entries in theirs.
   * @throws NeedsPlan
   */
  decide(layer: number, entry: Exclude<LayerEntry, { kind: "ignored" }>): Verdict;
};

export const shadowTree = (): ShadowTree => {
  const root = newNode();
  root.kind = "directory";

  /** The node of a path, and whether something above hides it from this layer. Marks the way, hidden or not. */
  const walk = (layer: number, path: readonly string[]): { node: Node; hidden: boolean } => {
    let node = root;
    let hidden = false;
    for (let i = 0; i < path.length; i++) {
      hidden ||= node.childrenHiddenBelow > layer;
      node = childOf(node, path[i] ?? "");
      hidden ||= node.hiddenBelow > layer;
      if (i === path.length - 1) break;
      if (isNoFolder(node)) {
        if (node.layer === layer) throw new NeedsPlan("a name below one that is no folder");
        hidden = true;
      }
      pass(node, layer);
    }
    return { node, hidden };
  };

  const hold = (path: readonly string[]): void => {
    let node = root;
    for (let i = 0; i < path.length - 1; i++) {
      node = childOf(node, path[i] ?? "");
      node.holds = true;
    }
  };

  const find = (path: readonly string[]): Node | undefined => {
    let node: Node | undefined = root;
    for (const part of path) node = node?.children?.get(part);
    return node;
  };

  const directory = (layer: number, node: Node, hidden: boolean): Verdict => {
    // A folder here too: what upper layers put in it did not go through a symlink of a still lower one.
    if (node.passedBy > layer) node.passedBy = -1;
    node.folderIn = layer;
    if (isNoFolder(node) && node.layer === layer) throw new NeedsPlan("a name twice in a layer");
    if (hidden || isNoFolder(node)) return "hidden";
    if (node.kind === "directory") return node.layer === layer ? "keep" : "hidden";
    node.kind = "directory";
    node.layer = layer;
    return "keep";
  };

  const other = (layer: number, node: Node, hidden: boolean, isSymlink: boolean): Verdict => {
    if (node.folderIn === layer) throw new NeedsPlan("a name twice in a layer");
    if (node.passedBy >= layer && (isSymlink || (!hidden && node.kind === "open")))
      throw new NeedsPlan("on the way to something above");
    if (isSymlink) node.symlinkIn = layer;
    if (!hidden && node.kind !== "open" && node.layer === layer) throw new NeedsPlan("a name twice in a layer");
    if (!hidden && node.kind === "open" && node.holds) throw new NeedsPlan("a folder above something else");
    if (!hidden && node.kind === "directory") {
      // Something in this very layer went through the name before it became this.
      if (node.passedBy === layer) throw new NeedsPlan("a name twice in a layer");
      node.hiddenBelow = Math.max(node.hiddenBelow, layer);
    }
    if (hidden || node.kind !== "open") return "hidden";
    node.kind = isSymlink ? "symlink" : "other";
    node.layer = layer;
    return "keep";
  };

  const opaque = (layer: number, path: readonly string[]): Verdict => {
    const { node, hidden } = path.length === 0 ? { node: root, hidden: false } : walk(layer, path);
    if (isNoFolder(node) && node.layer === layer) throw new NeedsPlan("an opaque mark in what is no folder");
    if (node !== root) pass(node, layer);
    if (!hidden && !isNoFolder(node)) node.childrenHiddenBelow = Math.max(node.childrenHiddenBelow, layer);
    return "hidden";
  };

  const decide: ShadowTree["decide"] = (layer, entry) => {
    if (entry.kind === "opaque") return opaque(layer, entry.path);
    if (entry.path.length === 0) {
      // The topmost entry for the root gives its attributes.
      if (root.layer === -1) root.layer = layer;
      return directory(layer, root, false);
    }
    const { node, hidden } = walk(layer, entry.path);
    if (entry.kind === "whiteout") {
      if (!hidden) node.hiddenBelow = Math.max(node.hiddenBelow, layer);
      return "hidden";
    }
    const verdict =
      entry.kind === "directory"
        ? directory(layer, node, hidden)
        : other(layer, node, hidden, entry.kind === "symlink");
    if (verdict === "hidden") return verdict;
    hold(entry.path);
    if (entry.kind === "hardlink") {
      const target = find(entry.target);
      if (!target || target.layer !== layer || !isNoFolder(target))
        throw new NeedsPlan("a hard link to what is hidden or elsewhere");
    }
    return verdict;
  };

  return { decide };
};

const isNoFolder = ({ kind }: Node): boolean => kind === "symlink" || kind === "other";

/** A layer's way leads through a name. */
const pass = (node: Node, layer: number): void => {
  if (node.symlinkIn === layer) throw new NeedsPlan("a parent that is a symlink");
  if (node.folderIn === layer) return;
  if (node.passedBy === -1 || layer < node.passedBy) node.passedBy = layer;
};

const childOf = (node: Node, name: string): Node => {
  node.children ??= new Map();
  const known = node.children.get(name);
  if (known) return known;
  const made = newNode();
  node.children.set(name, made);
  return made;
};
