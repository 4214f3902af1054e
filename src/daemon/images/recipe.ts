/** Recipes of images that are built from Debian packages: a folder each, below `images/`. */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { type Recipe, recipeSchema } from "../../contract/images.ts";
import { recipesFolder } from "../../host/paths.ts";

export type LoadedRecipe = Recipe & {
  folder: string;
  /** Script that builds every recipe. */
  script: string;
  /** sha256 over the recipe's files and the script, in hex. */
  digest: string;
};

/** Parts of a recipe's folder that its other way, through a container, takes alone: a change of theirs makes no other image. */
const OF_CONTAINERS = ["Dockerfile", "from-container.sh"];

/** Reads a recipe and all that its result depends on. */
export const loadRecipe = async (name: string, recipes = recipesFolder()): Promise<LoadedRecipe> => {
  const folder = join(recipes, name);
  const script = join(recipes, "build-rootfs.sh");
  const recipe = recipeSchema.parse(JSON.parse(await readFile(join(folder, "recipe.json"), "utf8")));
  const hash = createHash("sha256");
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile() && !OF_CONTAINERS.includes(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
  for (const file of [...files.sort(), script]) {
    const data = await readFile(file);
    hash.update(`${relative(recipes, file)}\0${data.length}\0`).update(data);
  }
  return { ...recipe, folder, script, digest: hash.digest("hex") };
};

/** The UUID that stands for a digest: the same recipe gives the same one (RFC 9562, version 8). */
export const uuidOf = (digest: string): string => {
  const hex = `${digest.slice(0, 12)}8${digest.slice(13, 16)}8${digest.slice(17, 32)}`;
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-");
};
