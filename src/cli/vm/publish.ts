import { formatHostPort, parsePublish } from "../../contract/ports.ts";
import { openClient } from "../../client/client.ts";
import { defineCommand } from "../command.ts";
import { usage } from "../parse.ts";
import { sayNotes, vmArgument } from "./shared.ts";

export const command = defineCommand({
  usage: ["VM PORT...", "--auto VM"],
  description:
    "A PORT is [[ADDRESS:]HOST:]GUEST[/udp]. It listens on the VM's own loopback address, 127.x.y.z, unless another ADDRESS\nof this machine is given; HOST is the guest's number unless given, 0 any that is free. It leads to a server that listens in\nthe guest, on its loopback too. Published ports stay over restarts and go with the VM; a connection wakes a VM that sleeps.",
  args: [vmArgument, { name: "PORT", help: "80, 8080:80, 53/udp, 192.0.2.1:8080:80", many: true, optional: true }],
  argv: "none",
  flags: {
    auto: { kind: "switch", help: "publish whatever comes to listen in the guest, for as long as it does" },
  },
  examples: [
    ["banger vm publish box 3000", "the guest's port 3000, at the same number"],
    ["banger vm publish box 8080:80 53/udp", "several"],
    ["banger vm publish box 0.0.0.0:8080:80", "for the whole network of this machine"],
  ],
  run: async ({ args: [vm = "", ...ports], values }) => {
    if (ports.length === 0 && !values.auto) throw usage("vm publish", "no port was given");
    const wanted = ports.map(parsePublish);
    using client = openClient();
    const request = { ports: wanted, ...(values.auto ? { auto: true } : {}) };
    const { published, notes } = await client.call("vmPublish", { vm }, request);
    await sayNotes(notes);
    const lines = published.map(
      ({ address, host, guest, proto }) =>
        `${formatHostPort(address, host)} -> ${guest}${proto === "udp" ? "/udp" : ""}`,
    );
    return { data: published, ...(lines.length > 0 ? { text: lines.join("\n") } : {}) };
  },
});
