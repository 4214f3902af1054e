/** How this machine resolves names, and how it is told about `.vm`. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../contract/errors.ts";
import { exists } from "../../host/files.ts";

export const resolverKinds = ["systemd-resolved", "NetworkManager", "dnsmasq", "resolv.conf"] as const;
export type ResolverKind = (typeof resolverKinds)[number];

const orEmpty = async (path: string): Promise<string> => {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR", "EISDIR"].includes(errnoOf(error) ?? "")) return "";
    throw error;
  }
};

const filesIn = async (folder: string): Promise<string[]> => {
  try {
    return (await readdir(folder)).map((name) => join(folder, name));
  } catch (error) {
    if (["ENOENT", "EACCES", "ENOTDIR"].includes(errnoOf(error) ?? "")) return [];
    throw error;
  }
};

/** @param root the machine's; another one in tests */
export const resolverKind = async (root = "/"): Promise<ResolverKind> => {
  const resolv = await orEmpty(join(root, "etc/resolv.conf"));
  if (/^nameserver\s+127\.0\.0\.5[34]\b/m.test(resolv)) return "systemd-resolved";
  const manager = [
    join(root, "etc/NetworkManager/NetworkManager.conf"),
    ...(await filesIn(join(root, "etc/NetworkManager/conf.d"))),
  ];
  const settings = await Promise.all(manager.map(orEmpty));
  if (settings.some((text) => /^\s*dns\s*=\s*dnsmasq\b/m.test(text))) return "NetworkManager";
  const running = ["run/dnsmasq/dnsmasq.pid", "run/dnsmasq.pid"].map((path) => exists(join(root, path)));
  if ((await Promise.all(running)).includes(true)) return "dnsmasq";
  return "resolv.conf";
};

/** Files that would hold such a set-up; `port` stands in those of banger. */
export const routesTo = async (port: number, root = "/"): Promise<string[]> => {
  const folders = ["etc/systemd/resolved.conf.d", "etc/NetworkManager/dnsmasq.d", "etc/dnsmasq.d"];
  const files = (await Promise.all(folders.map((folder) => filesIn(join(root, folder))))).flat();
  const texts = await Promise.all(files.map(orEmpty));
  return files.filter((_, index) => texts[index]?.includes(String(port)));
};

/** What a person types, as root. */
export const setUp = (kind: ResolverKind, address: string, port: number): string => {
  const put = (text: string, path: string) => `printf '${text}\\n' | sudo tee ${path} >/dev/null`;
  const server = `server=/vm/${address}#${port}`;
  switch (kind) {
    case "systemd-resolved":
      return [
        "sudo mkdir -p /etc/systemd/resolved.conf.d",
        put(`[Resolve]\\nDNS=${address}:${port}\\nDomains=~vm`, "/etc/systemd/resolved.conf.d/banger.conf"),
        "sudo systemctl restart systemd-resolved",
      ].join(" && ");
    case "NetworkManager":
      return `${put(server, "/etc/NetworkManager/dnsmasq.d/banger.conf")} && sudo systemctl reload NetworkManager`;
    case "dnsmasq":
      return `${put(server, "/etc/dnsmasq.d/banger.conf")} && sudo systemctl restart dnsmasq`;
    case "resolv.conf":
      return `resolv.conf can name no port, so a resolver that can comes before it: sudo apt-get install -y dnsmasq && ${put(server, "/etc/dnsmasq.d/banger.conf")} && sudo systemctl restart dnsmasq, then write \`nameserver 127.0.0.1\` first in /etc/resolv.conf`;
  }
};
