/**
 * What an image's layers come to, worked out from the entries of all of them in the order in which they are applied, before any content is
 * written. Slower than shadow.ts by one reading of all layers, and exact where the order from the top cannot tell.
 *
 * Rules, where the specification leaves room: a layer's whiteouts come first, whatever their place in it. A parent that is a symlink is
 * followed, within the image. A parent that is no folder becomes one. A name that is given twice is what it is given last. A hard link
 * may name a file of a layer below, one that this very layer hides too.
 */
import { TarError } from "../tar/error.ts";
import { describe } from "../tar/reader.ts";
import type { LayerEntry } from "./entry.ts";

/** Something with content or a target, and maybe several names. */
type Inode = { layer: number; ordinal: number; symlink: string | undefined };

type Node = {
  children: Map<string, Node> | undefined;
  /** Undefined: a folder. */
  inode: Inode | undefined;
  /** The entry that gives a folder its attributes; undefined: it has only been needed. */
  attributes: { layer: number; ordinal: number } | undefined;
};

/** What becomes of an entry: the first of the names gets its content, the others are links to it. None: hidden. */
export type Plan = {
  namesOf(layer: number, ordinal: number): readonly string[];
  /** Counts entries that stay. */
  kept: number;
};

export type PlannedEntry = { entry: Exclude<LayerEntry, { kind: "ignored" }>; ordinal: number };

/** As many as the kernel follows. */
const MOST_SYMLINKS = 40;

const folder = (): Node => ({ children: undefined, inode: undefined, attributes: undefined });

/** @returns takes the layers, lowest first, and gives the plan in the end */
export const planner = () => {
  const root = folder();
  /** Names that the present layer's whiteouts took away. */
  let hidden = new Map<string, Node>();

  /** Follows symlinks on the way to the parent, and makes what is missing. */
  const parentOf = (path: readonly string[], make: boolean): Node | undefined => {
    const todo = path.slice(0, -1).reverse();
    const trail: Node[] = [root];
    let followed = 0;
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === "" || part === ".") continue;
      if (part === "..") {
        if (trail.length > 1) trail.pop();
        continue;
      }
      const here = trail.at(-1) ?? root;
      let child = here.children?.get(part);
      if (child?.inode?.symlink !== undefined) {
        if (++followed > MOST_SYMLINKS) throw new TarError("refused", "too many symlinks on the way to it");
        if (child.inode.symlink.startsWith("/")) trail.length = 1;
        todo.push(...child.inode.symlink.split("/").reverse());
        continue;
      }
      if (!child || child.inode) {
        if (!make) return undefined;
        child = folder();
        put(here, part, child);
      }
      trail.push(child);
    }
    return trail.at(-1);
  };

  const lookUp = (path: readonly string[]): Node | undefined => parentOf(path, false)?.children?.get(path.at(-1) ?? "");

  /** A hard link's target that a whiteout of the same layer hides. */
  const lookUpHidden = (path: readonly string[]): Node | undefined => {
    for (let length = path.length; length > 0; length--) {
      let node = hidden.get(path.slice(0, length).join("/"));
      for (const part of path.slice(length)) node = node?.children?.get(part);
      if (node) return node;
    }
    return undefined;
  };

  const takeAway = ({ kind, path }: LayerEntry & { path: readonly string[] }): void => {
    if (kind === "opaque") {
      const node = path.length === 0 ? root : lookUpFolder(path);
      if (!node?.children) return;
      hidden.set(path.join("/"), { ...node, children: node.children });
      node.children = undefined;
      return;
    }
    const parent = parentOf(path, false);
    const base = path.at(-1) ?? "";
    const node = parent?.children?.get(base);
    if (!node) return;
    hidden.set(path.join("/"), node);
    parent?.children?.delete(base);
  };

  const lookUpFolder = (path: readonly string[]): Node | undefined =>
    // As a parent of something, so that a symlink at its end is followed too.
    parentOf([...path, "."], false);

  const add = (layer: number, { entry, ordinal }: PlannedEntry): void => {
    const { path } = entry;
    const base = path.at(-1);
    if (base === undefined) {
      root.attributes = { layer, ordinal };
      return;
    }
    const target = entry.kind === "hardlink" ? linkTarget(entry.target) : undefined;
    const parent = parentOf(path, true) ?? root;
    if (entry.kind === "directory") {
      let node = parent.children?.get(base);
      if (!node || node.inode) {
        node = folder();
        put(parent, base, node);
      }
      node.attributes = { layer, ordinal };
      return;
    }
    const symlink = entry.kind === "symlink" ? entry.target : undefined;
    const inode = target ?? { layer, ordinal, symlink };
    put(parent, base, { children: undefined, inode, attributes: undefined });
  };

  const linkTarget = (target: readonly string[]): Inode => {
    const node = lookUp(target) ?? lookUpHidden(target);
    if (!node)
      throw new TarError("refused", `its hard link's target ${describe(target.join("/"))} is not in the image`);
    if (!node.inode) throw new TarError("refused", `its hard link's target ${describe(target.join("/"))} is a folder`);
    return node.inode;
  };

  return {
    /**
     * @param entries of one layer, in order
     * @throws TarError that names the entry
     */
    addLayer: (layer: number, entries: readonly PlannedEntry[]): void => {
      hidden = new Map();
      const isWhiteout = ({ entry }: PlannedEntry) => entry.kind === "whiteout" || entry.kind === "opaque";
      for (const planned of [...entries.filter(isWhiteout), ...entries.filter((one) => !isWhiteout(one))]) {
        try {
          if (isWhiteout(planned)) takeAway(planned.entry);
          else add(layer, planned);
        } catch (error) {
          if (error instanceof TarError)
            throw new TarError(error.kind, `${describe(planned.entry.path.join("/"))}: ${error.message}`);
          throw error;
        }
      }
    },
    finish: (): Plan => planOf(root),
  };
};

const put = (parent: Node, name: string, node: Node): void => {
  parent.children ??= new Map();
  parent.children.set(name, node);
};

const NONE: readonly string[] = [];

const planOf = (root: Node): Plan => {
  const names: Map<number, string[]>[] = [];
  let kept = 0;
  const add = ({ layer, ordinal }: { layer: number; ordinal: number }, path: string) => {
    names[layer] ??= new Map();
    const known = names[layer].get(ordinal);
    kept++;
    if (known) known.push(path);
    else names[layer].set(ordinal, [path]);
  };
  const stack: { node: Node; path: string }[] = [{ node: root, path: "" }];
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { node, path } = next;
    const source = node.inode ?? node.attributes;
    if (source) add(source, path);
    for (const [name, child] of node.children ?? [])
      stack.push({ node: child, path: path === "" ? name : `${path}/${name}` });
  }
  return { kept, namesOf: (layer, ordinal) => names[layer]?.get(ordinal) ?? NONE };
};
