/** Firecracker's own description of its API (release 1.16.1), as a table: every request is checked against it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** `string`, `boolean`, `integer`, `integer 1..32`, `#Name` of another type, `[…]` an array of it, or the values that are allowed. */
type Kind = string | readonly string[];
type ObjectType = { required: readonly string[]; properties: Readonly<Record<string, Kind>> };
export type Description = {
  version: string;
  /** `PUT /drives/{drive_id}`: the type of its body. */
  calls: Readonly<Record<string, string | null>>;
  types: Readonly<Record<string, ObjectType | Kind>>;
};

export const readDescription = async (): Promise<Description> =>
  JSON.parse(await readFile(join(import.meta.dirname, "api.json"), "utf8")) as Description;

/** The call as the description names it, and the name in its path. */
export const callOf = (
  { calls }: Description,
  method: string,
  path: string,
): { call: string; id: string | undefined } | undefined => {
  if (`${method} ${path}` in calls) return { call: `${method} ${path}`, id: undefined };
  for (const call of Object.keys(calls)) {
    const [start, rest] = call.split("{");
    const id =
      start !== undefined && rest !== undefined && `${method} ${path}`.startsWith(start)
        ? `${method} ${path}`.slice(start.length)
        : "";
    if (/^[A-Za-z0-9_]+$/.test(id)) return { call, id };
  }
  return undefined;
};

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** @returns what is wrong with a value, or undefined */
export const faultIn = (description: Description, kind: Kind, value: unknown, at = "body"): string | undefined => {
  if (typeof kind !== "string")
    return typeof value === "string" && kind.includes(value) ? undefined : `${at}: must be one of ${kind.join(", ")}`;
  if (kind.startsWith("[")) {
    if (!Array.isArray(value)) return `${at}: must be an array`;
    for (const [index, item] of value.entries()) {
      const fault = faultIn(description, kind.slice(1, -1), item, `${at}[${index}]`);
      if (fault) return fault;
    }
    return undefined;
  }
  if (kind.startsWith("integer")) {
    if (!Number.isInteger(value)) return `${at}: must be an integer`;
    const [least = "", most = ""] = kind.slice("integer ".length).split("..");
    if (least && Number(value) < Number(least)) return `${at}: must be at least ${least}`;
    return most && Number(value) > Number(most) ? `${at}: must be at most ${most}` : undefined;
  }
  if (!kind.startsWith("#")) return typeof value === kind ? undefined : `${at}: must be a ${kind}`;
  const type = description.types[kind.slice(1)];
  if (type === undefined || type === "any") return undefined;
  if (typeof type === "string" || !("properties" in type)) return faultIn(description, type, value, at);
  if (!isObject(value)) return `${at}: must be an object`;
  const missing = type.required.find((name) => !(name in value));
  if (missing !== undefined) return `${at}: missing field \`${missing}\``;
  for (const [name, item] of Object.entries(value)) {
    const property = type.properties[name];
    if (property === undefined) return `${at}: unknown field \`${name}\``;
    const fault = faultIn(description, property, item, `${at}.${name}`);
    if (fault) return fault;
  }
  return undefined;
};

/** When a call is legal, by Firecracker's own request handler: before the start, after it, or at any time. */
export const whenLegal = (call: string): "before" | "after" | "any" => {
  const [method = "", path = ""] = call.split(" ");
  if (path === "/snapshot/create" || path === "/vm" || path.startsWith("/balloon/")) return "after";
  if (method === "GET" || path === "/logger" || path === "/mmds" || path === "/actions") return "any";
  if (method === "PATCH" && path !== "/machine-config") return "after";
  return "before";
};
