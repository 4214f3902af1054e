import { parsePublish } from "../../contract/ports.ts";

export const publishFlag = {
  kind: "list",
  short: "p",
  placeholder: "[HOST:]GUEST",
  help: "make a port of the guest reachable on this machine: 80, 8080:80, 53/udp",
  parse: parsePublish,
} as const;

export const autoPublishFlag = {
  kind: "switch",
  help: "publish whatever comes to listen in the guest, for as long as it does",
} as const;
